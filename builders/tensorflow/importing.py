"""The import action: a SavedModel, Keras or TFLite model as ONNX, held against its source."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx
import tensorflow as tf
import tf2onnx

from edgectl.build.kit import agreement, onnxfile
from edgectl.build.kit.data import real_inputs
from edgectl.build.kit.tfmodel import open_model, pair
from edgectl.build.kit.wording import first_line
from edgectl.build.protocol import Done, RefusalError, Task, report
from edgectl.engine.errors import EngineError, UnsupportedError
from edgectl.engine.litert import load
from edgectl.engine.options import EngineOptions

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    from edgectl.engine.litert import LiteRtSession
    from edgectl.engine.signature import TensorSpec

    Run = Callable[[Mapping[str, NDArray[Any]]], dict[str, NDArray[Any]]]

OPSET = 17
"""Read by ONNX Runtime from 1.12 and by TensorRT from 8.5."""
_TFLITE = b"TFL3"
_FAULTS = (
    ValueError, RuntimeError, TypeError, KeyError, AttributeError, AssertionError, IndexError,
)  # fmt: skip
"""What tf2onnx raises; it has no classes of its own."""


def import_model(task: Task) -> Done:
    """Convert a model to ONNX with the declared names and its own layout.

    Roles: `source` (a SavedModel directory, a .keras, .h5 or .tflite file), and `calibration` and
    `evaluation` where there are any. Params: `inputs`, `outputs`, `trustCode`. Refuses what is
    unsafe, unsupported or not what is declared, and an ONNX model that answers differently.
    """
    report(0.1, "loading")
    path = task.inputs["source"]
    tflite = path.is_file() and path.open("rb").read(8)[4:] == _TFLITE
    model, run, facts = _from_tflite(task, path) if tflite else _from_tensorflow(task, path)
    _check_operators(model)
    onnxfile.check_weights(model)
    onnxfile.set_shapes(model, task.params["inputs"], task.params["outputs"])
    onnxfile.check_signature(model, task.params["inputs"], task.params["outputs"])
    name_by_position(model)
    onnxfile.finish(model, task.model)
    target = Path("model.onnx")
    onnxfile.save(model, target)
    report(0.8, "comparing with the source")
    samples = real_inputs(task)
    actual = onnxfile.run(target, samples.arrays)
    facts["agreement"] = agreement.check(run(samples.arrays), actual, samples)
    return Done(
        {"model": target.name},
        {
            **facts,
            "opset": OPSET,
            "irVersion": model.ir_version,
            "nodes": len(model.graph.node),
            "operators": sorted({node.op_type for node in model.graph.node}),
        },
    )


def name_by_position(model: onnx.ModelProto) -> None:
    """Name inner tensors by where they are first used, and order the constants so.

    tf2onnx merges equal nodes and constants, and which of their names is left depends on where in
    memory they were.
    """
    constants = {tensor.name for tensor in onnxfile.tensors_of(model.graph) if tensor.name}
    kept = {value.name for value in (*model.graph.input, *model.graph.output)}
    names: dict[str, str] = {"": ""} | {name: name for name in kept}
    graphs = list(onnxfile.graphs_of(model.graph))
    for graph in graphs:
        for node in graph.node:
            for name in (*node.input, *node.output):
                kind = "constant" if name in constants else "value"
                names.setdefault(name, f"inner/{kind}_{len(names)}")
    for graph in graphs:
        for value in (*graph.input, *graph.output, *graph.initializer):
            value.name = names.setdefault(value.name, f"inner/value_{len(names)}")
        for node in graph.node:
            node.input[:] = [names[name] for name in node.input]
            node.output[:] = [names[name] for name in node.output]
        del graph.value_info[:]
        order = {name: index for index, name in enumerate(names.values())}
        ordered = sorted(graph.initializer, key=lambda tensor: order[tensor.name])
        copies = [onnx.TensorProto.FromString(t.SerializeToString()) for t in ordered]
        del graph.initializer[:]
        graph.initializer.extend(copies)


def _from_tensorflow(task: Task, path: Path) -> tuple[onnx.ModelProto, Run, dict[str, Any]]:
    inputs, outputs = task.params["inputs"], task.params["outputs"]
    trust = bool(task.params.get("trustCode", False))
    network = open_model(path, inputs, outputs, trust=trust)
    report(0.4, "converting")
    try:
        model, _ = tf2onnx.convert.from_function(
            tf.function(network.function, autograph=False),
            input_signature=network.signature(),
            opset=OPSET,
        )
    except _FAULTS as error:
        raise _not_convertible(network.form, error) from error
    _order(model, [f"input_{index}" for index in range(len(inputs))])
    onnxfile.rename_tensors(model, inputs, outputs)
    facts = {"source": network.form, "tensorflow": tf.__version__}
    return model, network.run, facts


def _order(model: onnx.ModelProto, names: list[str]) -> None:
    """The graph's inputs in the order of the function's; tf2onnx sorts them as it likes."""
    by_name = {value.name.split(":")[0]: value for value in onnxfile.graph_inputs(model.graph)}
    if sorted(by_name) != sorted(names):
        return
    ordered = [onnx.ValueInfoProto.FromString(by_name[n].SerializeToString()) for n in names]
    del model.graph.input[:]
    model.graph.input.extend(ordered)


def _from_tflite(task: Task, path: Path) -> tuple[onnx.ModelProto, Run, dict[str, Any]]:
    session = _session(path)
    inputs, outputs = task.params["inputs"], task.params["outputs"]
    takes = _paired(session, inputs, session.inputs, "inputs")
    gives = _paired(session, outputs, session.outputs, "outputs")
    report(0.4, "converting")
    try:
        model, _ = tf2onnx.convert._convert_common(  # noqa: SLF001 - from_tflite has no dequantize
            None, name=task.model, tflite_path=str(path), opset=OPSET, dequantize=True
        )
    except _FAULTS as error:
        raise _not_convertible("TFLite model", error) from error
    own = onnxfile.graph_inputs(model.graph)
    if any(value.type.tensor_type.elem_type in _INTEGERS for value in own) and any(
        spec.datatype == "FP32" for spec in session.inputs
    ):
        raise _quantised_boundary(path)
    onnxfile.rename_tensors(
        model,
        [takes[spec.name] for spec in session.inputs],
        [gives[spec.name] for spec in session.outputs],
    )

    def run(arrays: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        found = session.run({name: arrays[spec["name"]] for name, spec in takes.items()})
        return {spec["name"]: found[name] for name, spec in gives.items()}

    return model, run, {"source": "TFLite", "litert": session.engine}


_INTEGERS = {onnx.TensorProto.INT8, onnx.TensorProto.UINT8, onnx.TensorProto.INT16}


def _session(path: Path) -> LiteRtSession:
    try:
        return load(path, options=EngineOptions(), threads=1)
    except UnsupportedError as error:
        raise RefusalError(
            "unsupported-operator",
            str(error),
            node=error.node or error.operator,
            hint="convert the model again with TFLite built-in operators only",
        ) from error
    except EngineError as error:
        raise RefusalError(
            "does-not-load", str(error), hint="is the file whole? convert the model again"
        ) from error


def _paired(
    session: LiteRtSession,
    declared: list[dict[str, Any]],
    found: tuple[TensorSpec, ...],
    what: str,
) -> dict[str, dict[str, Any]]:
    """The file's name of each tensor to the declared one; refuses a file that differs.

    ONNX cannot free a batch that the file has fixed, though the session takes any rows.
    """
    tensors = {}
    for spec in found:
        shape = list(spec.shape)
        if shape[:1] == [-1] and not session.open_batch:
            shape[0] = 1
        tensors[spec.name] = (onnxfile.DATATYPES[spec.datatype], shape)
    return dict(zip(pair(declared, tensors, what), declared, strict=True))


def _quantised_boundary(path: Path) -> RefusalError:
    return RefusalError(
        "quantised-boundary",
        f"{path.name} takes integers that stand for real values, which ONNX has no input for",
        hint="convert it with float inputs and outputs (inference_input_type float32), or serve it "
        "by LiteRT, which takes the file as it is",
    )


def _check_operators(model: onnx.ModelProto) -> None:
    """tf2onnx leaves what it cannot translate in the graph under its old name."""
    for node in model.graph.node:
        known = node.domain in {"", "ai.onnx"} and onnx.defs.has(node.op_type)
        if not known and node.domain not in {"ai.onnx.ml", "com.microsoft"}:
            raise RefusalError(
                "unsupported-operator",
                f"operator {node.op_type} (node {node.name!r}) has no ONNX form in tf2onnx",
                node=node.name,
                hint="rewrite this part of the model; engines that take TensorFlow or TFLite "
                "directly (LiteRT) may have it",
            )


def _not_convertible(form: str, error: Exception) -> RefusalError:
    return RefusalError(
        "not-convertible",
        f"tf2onnx {tf2onnx.__version__} does not convert this {form}: {first_line(error)}",
        hint="simplify the part that it names; engines that take TensorFlow or TFLite directly "
        "(LiteRT) may take it as it is",
    )
