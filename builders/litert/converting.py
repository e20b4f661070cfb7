"""From ONNX or TensorFlow to a float .tflite file of static shapes."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx
import onnxruntime
import tensorflow as tf

import elementwise  # noqa: F401 - registers its operators, as do the next three
import recurrent  # noqa: F401
import shaping  # noqa: F401
import spatial  # noqa: F401
from edgectl.build.kit.onnxfile import (
    check_operators,
    check_signature,
    graph_inputs,
    load,
    set_shapes,
)
from edgectl.build.kit.tfmodel import Network
from edgectl.build.kit.wording import first_line, listed
from edgectl.build.protocol import RefusalError
from graph import trace

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_LACKED = re.compile(r"(?:TF Select|Custom) ops: (?P<operators>[\w, .]+)")
_LOOP = "TensorListReserve"


def static(specs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The declared inputs with a batch of 1; refuses another open dimension (`dynamic-shape`)."""
    fixed = []
    for spec in specs:
        shape = [1 if index == 0 and n == -1 else n for index, n in enumerate(spec["shape"])]
        if -1 in shape:
            raise RefusalError(
                "dynamic-shape",
                f"input {spec['name']!r} has shape {list(spec['shape'])}: TFLite takes static "
                "shapes, only the batch may be open",
                node=spec["name"],
                hint="declare the size that the device will send, and export the model with it",
            )
        fixed.append({**spec, "shape": shape})
    return fixed


def network_of(
    path: Path, inputs: Sequence[Mapping[str, Any]], outputs: Sequence[Mapping[str, Any]]
) -> Network:
    """An ONNX file as a TensorFlow function with the batch that `static` gives the inputs."""
    model = load(path)
    check_operators(model)
    fixed = static(inputs)
    check_signature(model, inputs, outputs)
    model = _folded(model, fixed)
    # In the graph's order; the manifest's is the caller's.
    given = [value.name for value in graph_inputs(model.graph)]
    results = [value.name for value in model.graph.output]

    def function(*tensors: Any) -> list[Any]:
        by_name = {spec["name"]: tensor for spec, tensor in zip(inputs, tensors, strict=True)}
        found = dict(zip(results, trace(model, {n: by_name[n] for n in given}), strict=True))
        return [found[spec["name"]] for spec in outputs]

    return Network(function, tuple(inputs), tuple(outputs), "ONNX", model)


def _folded(model: onnx.ModelProto, inputs: Sequence[Mapping[str, Any]]) -> onnx.ModelProto:
    """With static inputs, ONNX Runtime computes shapes and other constants ahead."""
    set_shapes(model, inputs, [])
    for value in model.graph.output:
        value.type.tensor_type.ClearField("shape")  # the batch that they had is no longer true
    del model.graph.value_info[:]
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    source, target = Path("static.onnx"), Path("folded.onnx")
    options.optimized_model_filepath = str(target)
    onnx.save_model(model, source, save_as_external_data=True, location="static.bin")
    try:
        onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
        return onnx.load_model(target)
    except Exception as error:
        raise RefusalError(
            "fixed-batch-fails",
            f"with a batch of 1, ONNX Runtime does not load the model: {first_line(error)}",
            hint="export the model so that its batch can be 1",
        ) from error
    finally:
        for path in (source, target, Path("static.bin")):
            path.unlink(missing_ok=True)


def convert(network: Network) -> bytes:
    """The float .tflite of a network, with constants in place of variables and a batch of 1.

    Refuses operators that TFLite lacks (`unsupported-operator`, with their nodes).
    """
    from tensorflow.python.framework.convert_to_constants import (
        convert_variables_to_constants_v2,
    )

    static(network.inputs)
    function = tf.function(network.function, autograph=False)
    frozen = convert_variables_to_constants_v2(
        function.get_concrete_function(*network.signature(batch=1))
    )
    converter = tf.lite.TFLiteConverter.from_concrete_functions([frozen])
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
    try:
        return bytes(converter.convert())
    except Exception as error:
        raise _refusal(str(error), frozen.graph.as_graph_def()) from error


def _refusal(text: str, graph: Any) -> RefusalError:
    """The converter's report as one sentence."""
    if _LOOP in text:
        return RefusalError(
            "unsupported-operator",
            "a recurrent layer's loop has an open batch inside, which TFLite cannot take",
            node=_nodes(graph, {_LOOP})[0] if _nodes(graph, {_LOOP}) else None,
            hint="give the .keras file instead of the SavedModel, or export with a batch of 1 "
            "(keras.Input(batch_size=1)) or with unroll=True",
        )
    lacked = sorted(
        {
            name.strip().removeprefix("tf.")
            for match in _LACKED.finditer(text)
            for name in match["operators"].split(",")
        }
    )
    if lacked:
        nodes = _nodes(graph, set(lacked))
        return RefusalError(
            "unsupported-operator",
            f"TFLite has no operator {', '.join(lacked)} (nodes {listed(nodes[:5])}); Select TF "
            "operators, which need all of TensorFlow on the device, are not used",
            node=nodes[0] if nodes else None,
            hint="rewrite this part of the model, or leave targets with litert or tflm out of the "
            "fleet",
        )
    return RefusalError(
        "not-convertible",
        f"TensorFlow {tf.__version__} does not convert the model to TFLite: {_reason(text)}",
        hint="simplify the part that it names and export the model again",
    )


def _reason(text: str) -> str:
    lines = [line.split("error:")[-1].strip() for line in text.splitlines() if "error:" in line]
    return (lines[0] if lines else first_line(Exception(text)))[:300]


def _nodes(graph: Any, operators: set[str]) -> list[str]:
    inner = (node for function in graph.library.function for node in function.node_def)
    return [node.name for node in (*graph.node, *inner) if node.op in operators]
