"""From PyTorch to one ONNX file: converted, held against the manifest, compared with the source."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnx.shape_inference
import onnxscript.optimizer
import torch

from edgectl.build.kit import agreement, onnxfile
from edgectl.build.kit.wording import first_line
from edgectl.build.protocol import RefusalError, Task

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from edgectl.build.kit.data import Samples

OPSET = 18
"""The lowest that the exporter writes without converting; ONNX Runtime reads it from 1.14."""
MAX_MODEL_BYTES = (2 << 30) - (16 << 20)
"""Protobuf's limit for one message, less room for the graph."""

_OPERATOR = re.compile(r"OpOverload\(op='([\w.:]+)', overload='(\w+)'\)")
_NODE = re.compile(r"Error when translating node %([\w.]+)")


def program_to_onnx(program: torch.export.ExportedProgram) -> onnx.ModelProto:
    """Convert a program; refuses an operator without an ONNX form, naming it and its node."""
    try:
        converted: Any = torch.onnx.export(
            program, (), dynamo=True, opset_version=OPSET, verbose=False, external_data=False
        )
    except Exception as error:
        raise _refused(error) from error
    model: onnx.ModelProto = converted.model_proto
    return model


def _refused(error: Exception) -> RefusalError:
    chain: list[BaseException] = [error]
    while chain[-1].__cause__ is not None:
        chain.append(chain[-1].__cause__)
    text = "\n".join(map(str, chain))
    node = _NODE.search(text)
    operator = _OPERATOR.search(text)
    if operator is not None:
        name = f"{operator[1]}.{operator[2]}".replace("::", ".")
        return unsupported(name, node[1] if node else name)
    return RefusalError(
        "not-convertible",
        f"the program has no ONNX form: {first_line(Exception(str(chain[-1])))}",
        node=node[1] if node else None,
        hint="replace the part that it names, and export the model again",
    )


def unsupported(operator: str, node: str) -> RefusalError:
    """The refusal of an operator that ONNX has no form for."""
    return RefusalError(
        "unsupported-operator",
        f"operator {operator} has no ONNX form",
        node=node,
        hint="replace it in the model's code by operators of torch.nn, and export again",
    )


def check_weights(weights: Mapping[str, Any]) -> None:
    """Refuse NaN anywhere and infinities in parameters (masks hold them on purpose), by name."""
    size = 0
    for name, tensor in weights.items():
        if not isinstance(tensor, torch.Tensor):
            continue
        size += tensor.numel() * tensor.element_size()
        if not tensor.is_floating_point():
            continue
        parameter = isinstance(tensor, torch.nn.Parameter)
        bad = ~torch.isfinite(tensor) if parameter else torch.isnan(tensor)
        if bad.any():
            raise RefusalError(
                "weights-not-finite",
                f"{int(bad.sum())} of {tensor.numel()} values of {name!r} are NaN or infinite",
                node=name,
                hint="the training diverged: train again and export a healthy checkpoint",
            )
    if size > MAX_MODEL_BYTES:
        raise RefusalError(
            "too-large",
            f"the weights are {size} bytes, one ONNX file holds {MAX_MODEL_BYTES}",
            hint="split the model, or export it in half precision",
        )


def declare(model: onnx.ModelProto, task: Task) -> onnx.ModelProto:
    """The model with the tensors that the manifest declares, folded for their shapes."""
    inputs, outputs = task.params["inputs"], task.params["outputs"]
    onnxfile.rename_tensors(model, inputs, outputs)
    onnxfile.check_signature(model, inputs, outputs)
    onnxfile.set_shapes(model, inputs, outputs)
    for graph in onnxfile.graphs_of(model.graph):
        del graph.value_info[:]  # shapes of the export, which can be freer than the declared ones
    try:
        model = onnxscript.optimizer.optimize(model)
        model = onnx.shape_inference.infer_shapes(model, data_prop=True)
        onnx.checker.check_model(model)
    except Exception as error:
        raise RefusalError(
            "shapes-contradict",
            f"with the declared shapes the model does not add up: {first_line(error)}",
            hint="correct spec.inputs and spec.outputs of the Model",
        ) from error
    return model


def write(model: onnx.ModelProto, name: str, path: Path) -> Path:
    """Write the same bytes for the same model; returns the path."""
    onnxfile.finish(model, name)
    onnxfile.save(model, path)
    return path


def compare(run: Callable[..., Any], path: Path, samples: Samples, task: Task) -> dict[str, Any]:
    """What the import has to say of the file, its agreement with the source among it.

    `run` takes the input tensors in their order and gives the output tensors in any nesting.
    Refuses outputs that differ (`outputs-changed`), and a source or a file that does not run.
    """
    names = [spec["name"] for spec in task.params["outputs"]]
    batch = task.params["inputs"][0]["shape"][0]
    expected = _run_source(run, samples, names, samples.rows if batch == -1 else batch)
    try:
        actual = onnxfile.run(path, samples.arrays)
    except RefusalError:
        raise
    except Exception as error:
        raise RefusalError(
            "outputs-changed",
            f"the imported model does not run on {samples.origin} data: {first_line(error)}",
            hint="export with dynamic shapes where the manifest says -1, and without sizes that "
            "were fixed by tracing",
        ) from error
    agreed = agreement.check(expected, actual, samples)
    _check_shapes(actual, task)
    model = onnx.load_model(path)
    return {
        "opset": onnxfile.opset_of(model),
        "irVersion": model.ir_version,
        "nodes": len(model.graph.node),
        "parameters": sum(int(np.prod(tensor.dims)) for tensor in model.graph.initializer),
        "operators": sorted(
            {node.op_type for graph in onnxfile.graphs_of(model.graph) for node in graph.node}
        ),
        "agreement": agreed,
    }


def _run_source(
    run: Callable[..., Any], samples: Samples, names: list[str], batch: int
) -> dict[str, NDArray[Any]]:
    parts = []
    try:
        with torch.no_grad():
            for start in range(0, samples.rows, batch):
                rows = [values[start : start + batch] for values in samples.arrays.values()]
                outputs = run(*(torch.from_numpy(np.ascontiguousarray(row)) for row in rows))
                parts.append([tensor.detach().numpy() for tensor in _tensors(outputs)])
    except Exception as error:
        raise RefusalError(
            "source-does-not-run",
            f"the source itself fails on {samples.origin} data: {first_line(error)}",
            hint="export with dynamic shapes where the manifest says -1, or declare the shapes "
            "that the model was exported with",
        ) from error
    if len(parts[0]) != len(names):
        raise RefusalError(
            "signature-differs",
            f"the model gives {len(parts[0])} tensors, the manifest declares {len(names)}",
            hint="correct spec.outputs of the Model",
        )
    return {name: np.concatenate([part[i] for part in parts]) for i, name in enumerate(names)}


def _tensors(outputs: Any) -> Iterator[torch.Tensor]:
    if isinstance(outputs, torch.Tensor):
        yield outputs
    elif isinstance(outputs, dict):
        for value in outputs.values():
            yield from _tensors(value)
    elif isinstance(outputs, (list, tuple)):
        for value in outputs:
            yield from _tensors(value)


def _check_shapes(outputs: Mapping[str, NDArray[Any]], task: Task) -> None:
    for spec in task.params["outputs"]:
        shape = list(outputs[spec["name"]].shape)
        fits = len(shape) == len(spec["shape"]) and all(
            wanted in (-1, size) for wanted, size in zip(spec["shape"][1:], shape[1:], strict=True)
        )
        if not fits:
            raise RefusalError(
                "signature-differs",
                f"{spec['name']!r} is {shape} on the samples, {spec['shape']} in the manifest",
                node=spec["name"],
                hint="correct spec.outputs of the Model",
            )
