"""Whether TensorRT will read a model: its operators, shapes, types and quantisation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from edgectl.build.kit.onnxfile import graph_inputs, graphs_of, opset_of, tensors_of
from edgectl.build.protocol import RefusalError
from edgectl.engine.recipe import version_numbers
from operators import OPSETS, READ, REMEDIES, SINCE

if TYPE_CHECKING:
    from collections.abc import Iterator

STANDARD = {"", "ai.onnx"}
OLDEST = "10.0"
BOUNDARY = {
    TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.INT8, TensorProto.UINT8,
    TensorProto.INT32, TensorProto.INT64, TensorProto.BOOL,
}  # fmt: skip
"""Types of tensors that go in and out."""
TYPED = {"fp16": TensorProto.FLOAT16, "bf16": TensorProto.BFLOAT16}
SYMMETRIC = (
    "set quantization of the Target to {activations: int8, weights: int8, perChannel: true, "
    "symmetricActivations: true}"
)


def check_operators(model: onnx.ModelProto, least: str) -> str:
    """Refuse what no TensorRT reads, or what the oldest that the target allows does not.

    Returns the first version that reads all of the model.
    """
    opset = opset_of(model)
    if opset not in OPSETS:
        raise RefusalError(
            "unsupported-opset",
            f"the model has opset {opset}; TensorRT reads {OPSETS.start} to {OPSETS.stop - 1}",
            hint=f"export the model with opset {min(max(opset, 17), OPSETS.stop - 1)}",
        )
    needed = OLDEST
    for node in _nodes(model):
        if node.domain not in STANDARD or node.op_type not in READ:
            name = node.op_type if node.domain in STANDARD else f"{node.domain}:{node.op_type}"
            raise RefusalError(
                "unsupported-operator",
                f"TensorRT does not read operator {name} (node {node.name!r})",
                node=node.name,
                hint=REMEDIES.get(node.op_type, "replace it in the model, or use a target with "
                "the engine onnxruntime, whose CUDA provider runs it"),
            )  # fmt: skip
        since = SINCE.get(node.op_type, OLDEST)
        if version_numbers(since) > version_numbers(least):
            raise RefusalError(
                "unsupported-operator",
                f"TensorRT reads operator {node.op_type} (node {node.name!r}) from {since} on; "
                f"the target allows {least}",
                node=node.name,
                hint=f"set engine.version of the Target to '>={since}', or replace the operator",
            )
        needed = max(needed, since, key=version_numbers)
    return needed


def check_boundary(model: onnx.ModelProto) -> bool:
    """Refuse shapes that are open beyond the batch, and types that cannot go in or out.

    Returns whether the batch is open.
    """
    is_open = False
    inputs = graph_inputs(model.graph)
    for value in (*inputs, *model.graph.output):
        tensor = value.type.tensor_type
        if tensor.elem_type not in BOUNDARY:
            kind = TensorProto.DataType.Name(tensor.elem_type)
            raise RefusalError(
                "unsupported-datatype",
                f"tensor {value.name!r} is {kind}, which TensorRT takes neither in nor out",
                node=value.name,
                hint="cast it to FP32 or INT32 inside the model",
            )
    for value in inputs:
        sizes = [d.dim_value or -1 for d in value.type.tensor_type.shape.dim]
        if -1 in sizes[1:]:
            raise RefusalError(
                "dynamic-shape",
                f"input {value.name!r} of shape {sizes} leaves more than its batch open, and an "
                "engine is built for sizes that are known",
                node=value.name,
                hint="fix these sizes in spec.inputs, and export the model with them",
            )
        is_open |= sizes[:1] == [-1]
    return is_open


def check_precision(model: onnx.ModelProto, precision: str) -> None:
    """Refuse a model whose tensors are not of the precision that it is to run in.

    Nothing lowers a precision on the device: what the model says is what runs.
    """
    if precision == "int8":
        check_quantization(model)
    elif precision in TYPED:
        wanted = TYPED[precision]
        if all(tensor.data_type != wanted for tensor in tensors_of(model.graph)):
            raise RefusalError(
                "not-typed",
                f"no tensor of the model is {precision}, so the engine would run in another "
                "precision",
                hint="let the onnx builder make it: optimize.precision of the Model",
            )
    elif precision != "fp32":
        raise RefusalError(
            "unsupported-precision",
            f"TensorRT runs fp32, fp16, bf16 and int8, not {precision}",
            hint="set optimize.precision of the Model, or precisions of the Target",
        )


def check_quantization(model: onnx.ModelProto) -> None:
    """Refuse quantisation that is not symmetric and signed, which is all that TensorRT takes."""
    constants = {
        tensor.name: tensor for graph in graphs_of(model.graph) for tensor in graph.initializer
    } | {
        node.output[0]: node.attribute[0].t
        for node in _nodes(model)
        if node.op_type == "Constant" and node.attribute and node.attribute[0].HasField("t")
    }
    pairs = [n for n in _nodes(model) if n.op_type in {"QuantizeLinear", "DequantizeLinear"}]
    if not pairs:
        raise RefusalError(
            "not-quantized",
            "the model has no QuantizeLinear node, so nothing of it would run in int8",
            hint="let the onnx builder quantise it: optimize.precision: int8 of the Model",
        )
    for node in pairs:
        _check_pair(node, constants)


def _check_pair(node: onnx.NodeProto, constants: dict[str, Any]) -> None:
    zero_point = constants.get(node.input[2]) if len(node.input) > 2 else None
    weight = constants.get(node.input[0])
    kind = zero_point.data_type if zero_point is not None else _stored_type(node, weight)
    name = TensorProto.DataType.Name(kind)
    if kind != TensorProto.INT8:
        raise RefusalError(
            "unsigned-quantization",
            f"{node.op_type} {node.name!r} quantises to {name}; TensorRT takes INT8",
            node=node.name,
            hint=SYMMETRIC,
        )
    if zero_point is not None and np.any(numpy_helper.to_array(zero_point)):
        raise RefusalError(
            "asymmetric-quantization",
            f"{node.op_type} {node.name!r} has a zero point that is not 0; TensorRT takes none",
            node=node.name,
            hint=SYMMETRIC,
        )


def _stored_type(node: onnx.NodeProto, weight: onnx.TensorProto | None) -> int:
    """What a node without a zero point quantises to: ONNX says UINT8 where nothing else is said."""
    if weight is not None and node.op_type == "DequantizeLinear":
        return weight.data_type
    said = next((a.i for a in node.attribute if a.name == "output_dtype"), 0)
    return said or TensorProto.UINT8


def _nodes(model: onnx.ModelProto) -> Iterator[onnx.NodeProto]:
    for graph in graphs_of(model.graph):
        yield from graph.node
