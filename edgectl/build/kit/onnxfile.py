"""ONNX graphs as a whole: walking them, holding them against the manifest, running them, and
writing them without a trace of where and when. Needs onnx; `run` also ONNX Runtime."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import numpy_helper

from edgectl.build.kit.wording import first_line, listed
from edgectl.build.protocol import RefusalError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    Tensors = Sequence[Mapping[str, Any]]
    """Tensors as a manifest declares them: `name`, `datatype` and `shape`."""

MAX_FILE_BYTES = (2 << 30) - 1
"""Protobuf's own limit for one message."""
DATATYPES = {
    "BOOL": "bool", "UINT8": "uint8", "UINT16": "uint16", "UINT32": "uint32", "UINT64": "uint64",
    "INT8": "int8", "INT16": "int16", "INT32": "int32", "INT64": "int64",
    "FP16": "float16", "FP32": "float32", "FP64": "float64", "BYTES": "object",
}  # fmt: skip
"""Open Inference Protocol's names to numpy's."""


def graphs_of(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """A graph and every graph inside its control-flow nodes."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                if inner.node or inner.initializer:
                    yield from graphs_of(inner)


def tensors_of(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    """Every constant: initializers and tensor attributes, inner graphs included."""
    for inner in graphs_of(graph):
        yield from inner.initializer
        for node in inner.node:
            for attribute in node.attribute:
                if attribute.HasField("t"):
                    yield attribute.t
                yield from attribute.tensors


def check_weights(model: onnx.ModelProto) -> None:
    """Refuse NaN and infinite weights (`weights-not-finite`): a training that diverged.

    Also NaN in those that are no tensors: coefficients and trees of ai.onnx.ml are lists of
    numbers, in which a threshold may be infinite.
    """
    for tensor in tensors_of(model.graph):
        try:
            values = numpy_helper.to_array(tensor)
        except Exception as error:
            raise RefusalError(
                "weights-broken",
                f"a tensor of weights cannot be read: {first_line(error)}",
                node=tensor.name,
                hint="is the file whole? export the model again",
            ) from error
        if values.dtype.kind == "f" and not is_usable(values):
            raise _not_finite(values, tensor.name)
    for graph in graphs_of(model.graph):
        for node in graph.node:
            for attribute in node.attribute:
                numbers = np.array(attribute.floats)
                if np.isnan(numbers).any():
                    raise _not_finite(numbers, node.name or node.op_type)


def is_usable(values: NDArray[Any]) -> bool:
    """Whether constants are finite, or a bound or a mask: those are infinite on purpose, and have
    nothing else but zeros; weights never look so."""
    finite = np.isfinite(values)
    return bool(finite.all() or not (np.isnan(values).any() or values[finite].any()))


def _not_finite(values: NDArray[Any], where: str) -> RefusalError:
    count = int((~np.isfinite(values)).sum())
    return RefusalError(
        "weights-not-finite",
        f"weights hold NaN or infinite values, {count} of {values.size}",
        node=where,
        hint="the training diverged: train again and export a healthy checkpoint",
    )


def opset_of(model: onnx.ModelProto) -> int:
    """The version of the standard operators that a model uses."""
    return max((o.version for o in model.opset_import if o.domain in {"", "ai.onnx"}), default=1)


def finish(model: onnx.ModelProto, name: str) -> None:
    """Strip what a clock, a path or a chance put in, and name the rest by position."""
    for graph in graphs_of(model.graph):
        graph.doc_string = ""
        del graph.metadata_props[:]
        for value in (*graph.input, *graph.output, *graph.value_info):
            value.doc_string = ""
        for tensor in graph.initializer:
            tensor.doc_string = ""
        for index, node in enumerate(graph.node):
            node.name = f"{node.op_type}_{index}"
            node.doc_string = ""
            del node.metadata_props[:]
    model.graph.name = name
    model.doc_string = ""
    model.producer_name = "edgectl"
    model.producer_version = ""
    model.domain = ""
    model.model_version = 0
    del model.metadata_props[:]
    used = {node.domain for graph in graphs_of(model.graph) for node in graph.node} | {""}
    kept = sorted(
        ((o.domain if o.domain != "ai.onnx" else "", o.version) for o in model.opset_import),
    )
    del model.opset_import[:]
    model.opset_import.extend(
        onnx.helper.make_opsetid(domain, version) for domain, version in kept if domain in used
    )
    # The oldest IR that can say this opset: an engine of last year has to read it.
    model.ir_version = onnx.helper.find_min_ir_version_for(model.opset_import, ignore_unknown=True)


def save(model: onnx.ModelProto, path: Path) -> None:
    """Write deterministic bytes; refuses more than one ONNX file holds (`too-large`)."""
    try:
        data = model.SerializeToString(deterministic=True)
    except Exception as error:  # EncodeError has no typed base
        raise RefusalError(
            "too-large",
            f"the model has more than the {MAX_FILE_BYTES} bytes that one ONNX file holds",
            hint="split the model, or make its weights smaller before the import (float16)",
        ) from error
    path.write_bytes(data)


def load(path: Path) -> onnx.ModelProto:
    """Read what another action wrote; refuses what is no readable ONNX file (`does-not-load`)."""
    try:
        return onnx.load_model(path)
    except Exception as error:  # DecodeError has no typed base
        raise RefusalError(
            "does-not-load",
            f"{path.name} is not a readable ONNX file: {first_line(error)}",
            hint="is the file whole? export the model again, and run the same command again",
        ) from error


def graph_inputs(graph: onnx.GraphProto) -> list[onnx.ValueInfoProto]:
    """The inputs that a caller has to give: those without an initializer (IR 3 lists them too)."""
    constants = {tensor.name for tensor in graph.initializer}
    return [value for value in graph.input if value.name not in constants]


def rename_tensors(
    model: onnx.ModelProto,
    inputs: Sequence[Mapping[str, Any]],
    outputs: Sequence[Mapping[str, Any]],
) -> None:
    """Give the graph's inputs and outputs the declared names, by position.

    Refuses another number of them (`signature-differs`). A tensor inside that has a declared name
    already gets another one.
    """
    graph = model.graph
    pairs: dict[str, str] = {}
    for what, declared, found in (
        ("inputs", inputs, graph_inputs(graph)),
        ("outputs", outputs, list(graph.output)),
    ):
        if len(declared) != len(found):
            raise RefusalError(
                "signature-differs",
                f"the model has {len(found)} {what} ({listed([v.name for v in found])}), the "
                f"manifest declares {len(declared)}",
                hint=f"correct spec.{what} of the Model",
            )
        pairs |= {v.name: spec["name"] for v, spec in zip(found, declared, strict=True)}
    wanted = set(pairs.values())
    inside = {name for each in graphs_of(graph) for node in each.node for name in node.output} | {
        tensor.name for each in graphs_of(graph) for tensor in each.initializer
    }
    pairs |= {name: f"{name}/inner" for name in (inside & wanted) - pairs.keys()}
    for each in graphs_of(graph):
        for node in each.node:
            node.input[:] = [pairs.get(name, name) for name in node.input]
            node.output[:] = [pairs.get(name, name) for name in node.output]
        for value in (*each.input, *each.output, *each.value_info, *each.initializer):
            value.name = pairs.get(value.name, value.name)


def set_shapes(
    model: onnx.ModelProto,
    inputs: Sequence[Mapping[str, Any]],
    outputs: Sequence[Mapping[str, Any]],
) -> None:
    """Write the declared shapes, -1 as a free dimension, on the graph's inputs and outputs."""
    values = {value.name: value for value in (*model.graph.input, *model.graph.output)}
    for spec in (*inputs, *outputs):
        tensor = values[spec["name"]].type.tensor_type
        tensor.ClearField("shape")
        for place, size in enumerate(spec["shape"]):
            dimension = tensor.shape.dim.add()
            if size == -1:
                dimension.dim_param = "batch" if place == 0 else f"{spec['name']}_{place}"
            else:
                dimension.dim_value = size


def check_signature(
    model: onnx.ModelProto,
    inputs: Sequence[Mapping[str, Any]],
    outputs: Sequence[Mapping[str, Any]],
) -> None:
    """Refuse a model whose inputs and outputs are not the ones that the manifest declares."""
    constants = {tensor.name for tensor in model.graph.initializer}
    takes = [value for value in model.graph.input if value.name not in constants]
    for what, declared, found in (
        ("inputs", inputs, takes),
        ("outputs", outputs, list(model.graph.output)),
    ):
        names = [value.name for value in found]
        wanted = [spec["name"] for spec in declared]
        if sorted(names) != sorted(wanted):
            raise RefusalError(
                "signature-differs",
                f"the model's {what} are {listed(names)}, the manifest declares {listed(wanted)}",
                hint=f"correct spec.{what} of the Model, or export with these names",
            )
        by_name = {value.name: value.type.tensor_type for value in found}
        for spec in declared:
            _check_tensor(spec, by_name[spec["name"]], what)


def _check_tensor(spec: Mapping[str, Any], found: onnx.TypeProto.Tensor, what: str) -> None:
    dtype = onnx.helper.tensor_dtype_to_np_dtype(found.elem_type).name
    dims = [d.dim_value if d.HasField("dim_value") else -1 for d in found.shape.dim]
    fits = not found.HasField("shape") or (
        len(dims) == len(spec["shape"])
        and all(have in (-1, want) for have, want in zip(dims, spec["shape"], strict=True))
    )
    if dtype != DATATYPES.get(spec["datatype"]) or not fits:
        raise RefusalError(
            "signature-differs",
            f"{spec['name']!r} is {dtype} {dims} in the model, "
            f"{spec['datatype']} {spec['shape']} in the manifest",
            node=spec["name"],
            hint=f"correct spec.{what} of the Model; -1 is a free dimension, which the model must "
            "be exported with",
        )


def check_operators(model: onnx.ModelProto) -> None:
    """Refuse operators that the ONNX standard does not define at the model's opset."""
    opsets = {entry.domain or "": entry.version for entry in model.opset_import}
    for graph in graphs_of(model.graph):
        for index, node in enumerate(graph.node):
            domain = "" if node.domain == "ai.onnx" else node.domain
            where = node.name or f"{node.op_type} number {index}"
            if domain not in opsets:
                raise RefusalError(
                    "unknown-domain",
                    f"operator {domain}.{node.op_type} is of a domain the model does not import",
                    node=where,
                    hint="export the model again with the standard ONNX operators",
                )
            try:
                schema = onnx.defs.get_schema(node.op_type, opsets[domain], domain)
            except onnx.defs.SchemaError:
                schema = None
            if schema is None or schema.deprecated:
                raise RefusalError(
                    "unsupported-operator",
                    f"operator {domain or 'ai.onnx'}.{node.op_type} does not exist in opset "
                    f"{opsets[domain]}",
                    node=where,
                    hint="replace the operator, or export again with the standard ONNX operators",
                )


def run(path: Path, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """The outputs of an ONNX file by ONNX Runtime, on one thread of the CPU, by name.

    Rows go in whole batches where the file fixes the batch size. Refuses what ONNX Runtime does
    not load (`engine-refuses`) or fails to run (`does-not-run`).
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:
        raise RefusalError(
            "engine-refuses",
            f"ONNX Runtime {onnxruntime.__version__} does not load the model: {first_line(error)}",
            hint="replace the operator it names, or export with another opset",
        ) from error
    names = [output.name for output in session.get_outputs()]
    rows = len(next(iter(inputs.values())))
    fixed = [node.shape[0] for node in session.get_inputs() if node.shape]
    size = next((n for n in fixed if isinstance(n, int)), rows)
    starts = range(0, rows - rows % size, size)
    batches = [{name: rows[at : at + size] for name, rows in inputs.items()} for at in starts]
    try:
        parts = [session.run(names, batch) for batch in batches]
    except Exception as error:
        raise RefusalError(
            "does-not-run",
            f"ONNX Runtime {onnxruntime.__version__} loads the model and fails to run it: "
            f"{first_line(error)}",
            hint="run the model on the data where it was made: its operators and shapes do not fit",
        ) from error
    return {name: np.concatenate([part[i] for part in parts]) for i, name in enumerate(names)}
