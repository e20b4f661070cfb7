"""Small .tflite files, written as FlatBuffers: real ones, and ones with something wrong."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

import flatbuffers
import numpy as np
from tflite_micro import runtime

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

schema = runtime.schema_fb
_IDENTIFIER = b"TFL3"


class Writer:
    """A model with one graph, tensor by tensor and operator by operator."""

    def __init__(self) -> None:
        self.model = schema.ModelT()
        self.model.version = 3
        self.model.buffers = [schema.BufferT()]
        self.model.operatorCodes = []
        self.graph = schema.SubGraphT()
        self.graph.tensors, self.graph.operators = [], []
        self.model.subgraphs = [self.graph]

    def tensor(
        self,
        name: str,
        shape: Sequence[int],
        kind: str = "INT8",
        *,
        scales: Sequence[float] = (),
        zero_point: int = 0,
        axis: int = 0,
        values: NDArray[Any] | None = None,
    ) -> int:
        """Add a tensor, constant if it has values; its index."""
        tensor = schema.TensorT()
        tensor.name, tensor.shape = name.encode(), list(shape)
        tensor.type, tensor.buffer = getattr(schema.TensorType, kind), 0
        if scales:
            tensor.quantization = schema.QuantizationParametersT()
            tensor.quantization.scale = [float(scale) for scale in scales]
            tensor.quantization.zeroPoint = [zero_point] * len(scales)
            tensor.quantization.quantizedDimension = axis
        if values is not None:
            buffer = schema.BufferT()
            buffer.data = np.frombuffer(np.ascontiguousarray(values).tobytes(), np.uint8)
            tensor.buffer = len(self.model.buffers)
            self.model.buffers.append(buffer)
        self.graph.tensors.append(tensor)
        return len(self.graph.tensors) - 1

    def operator(
        self,
        name: str,
        inputs: Sequence[int],
        outputs: Sequence[int],
        options: Any = None,
        version: int = 1,
    ) -> None:
        """Add an operator; a name that the schema lacks is a custom operator's."""
        code = schema.OperatorCodeT()
        number = getattr(schema.BuiltinOperator, name, schema.BuiltinOperator.CUSTOM)
        code.builtinCode, code.deprecatedBuiltinCode = number, min(number, 127)
        code.customCode = name.encode() if number == schema.BuiltinOperator.CUSTOM else None
        code.version = version
        operator = schema.OperatorT()
        operator.opcodeIndex = len(self.model.operatorCodes)
        operator.inputs, operator.outputs = list(inputs), list(outputs)
        if options is not None:
            kind = type(options).__name__.removesuffix("T")
            operator.builtinOptionsType = getattr(schema.BuiltinOptions, kind)
            operator.builtinOptions = options
        self.model.operatorCodes.append(code)
        self.graph.operators.append(operator)

    def finish(self, inputs: Sequence[int], outputs: Sequence[int]) -> bytes:
        """The file."""
        self.graph.inputs, self.graph.outputs = list(inputs), list(outputs)
        return packed(self.model)


def packed(model: Any) -> bytes:
    """The bytes of a model of the schema's object API."""
    builder = flatbuffers.Builder(1 << 12)
    builder.Finish(model.Pack(builder), _IDENTIFIER)
    return bytes(builder.Output())


def edited(content: bytes, change: Callable[[Any], None]) -> bytes:
    """The file with something changed in its object form."""
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAsModel(content, 0))
    change(model)
    return packed(model)


def unary(name: str, kind: str = "INT8", *, scale: float = 0.5, version: int = 1) -> bytes:
    """One operator from `x` [1, 4] to `y` [1, 4]; RESHAPE is the identity."""
    writer = Writer()
    scales = (scale,) if kind.startswith("INT") else ()
    x = writer.tensor("x", (1, 4), kind, scales=scales, zero_point=-3 if scales else 0)
    y = writer.tensor("y", (1, 4), kind, scales=scales, zero_point=-3 if scales else 0)
    writer.operator(name, [x], [y], version=version)
    return writer.finish([x], [y])


def dense(
    layers: Sequence[tuple[NDArray[Any], NDArray[Any]]], rows: NDArray[Any], *, named: bool = True
) -> bytes:
    """Fully connected layers with ReLU between them, quantised to int8 as a converter does it.

    `layers` are weights [in, out] and biases [out]; ranges come from the network's activations on
    `rows` [n, in]. The signature names the ends `features` and `result` unless `named` is false.
    """
    writer = Writer()
    scale, zero_point = _affine(rows)
    given = first = writer.tensor(
        "serving_default_features:0", (1, rows.shape[1]), scales=(scale,), zero_point=zero_point
    )
    for number, (weights, biases) in enumerate(layers):
        last = number == len(layers) - 1
        rows = rows @ weights + biases
        rows = rows if last else np.maximum(rows, 0)
        step = float(np.abs(weights).max() / 127)
        kernel = writer.tensor(
            f"weights {number}", weights.T.shape, scales=(step,),
            values=np.round(weights.T / step).astype(np.int8),
        )  # fmt: skip
        bias = writer.tensor(
            f"bias {number}", biases.shape, "INT32", scales=(step * scale,),
            values=np.round(biases / (step * scale)).astype(np.int32),
        )  # fmt: skip
        scale, zero_point = _affine(rows)
        result = writer.tensor(
            f"StatefulPartitionedCall:{number}", (1, len(biases)), scales=(scale,),
            zero_point=zero_point,
        )  # fmt: skip
        options = schema.FullyConnectedOptionsT()
        options.fusedActivationFunction = 0 if last else schema.ActivationFunctionType.RELU
        writer.operator("FULLY_CONNECTED", [given, kernel, bias], [result], options, version=4)
        given = result
    if named:
        writer.model.signatureDefs = [_signature({"features": first}, {"result": given})]
    return writer.finish([first], [given])


def convolution(side: int = 12, channels: int = 8, seed: int = 0) -> bytes:
    """CONV_2D, DEPTHWISE_CONV_2D, MEAN, FULLY_CONNECTED and SOFTMAX, of seeded weights: an image
    [1, side, side, 1] to 4 classes. Weights have a scale for each channel."""
    rng = np.random.default_rng(seed)
    writer = Writer()

    def constant(name: str, shape: Sequence[int], axis: int) -> int:
        values = rng.integers(-127, 128, shape).astype(np.int8)
        scales = rng.uniform(0.002, 0.01, shape[axis])
        return writer.tensor(name, shape, scales=scales.tolist(), axis=axis, values=values)

    def bias(name: str, count: int) -> int:
        values = rng.integers(-500, 500, count).astype(np.int32)
        return writer.tensor(name, (count,), "INT32", scales=[1e-4] * count, values=values)

    image = writer.tensor("image", (1, side, side, 1), scales=(1 / 255,), zero_point=-128)
    maps = (1, side // 2, side // 2, channels)
    first = writer.tensor("first", maps, scales=(0.05,), zero_point=-128)
    second = writer.tensor("second", maps, scales=(0.05,), zero_point=-128)
    pooled = writer.tensor("pooled", (1, channels), scales=(0.05,), zero_point=-128)
    logits = writer.tensor("logits", (1, 4), scales=(0.1,), zero_point=0)
    scores = writer.tensor("scores", (1, 4), scales=(1 / 256,), zero_point=-128)
    conv = schema.Conv2DOptionsT()
    conv.strideH = conv.strideW = 2
    conv.fusedActivationFunction = schema.ActivationFunctionType.RELU
    kernel = constant("conv", (channels, 3, 3, 1), 0)
    writer.operator("CONV_2D", [image, kernel, bias("conv bias", channels)], [first], conv, 3)
    depth = schema.DepthwiseConv2DOptionsT()
    depth.strideH = depth.strideW = depth.depthMultiplier = 1
    depth.fusedActivationFunction = schema.ActivationFunctionType.RELU
    kernel = constant("depth", (1, 3, 3, channels), 3)
    given = [first, kernel, bias("depth bias", channels)]
    writer.operator("DEPTHWISE_CONV_2D", given, [second], depth, 3)
    axes = writer.tensor("axes", (2,), "INT32", values=np.array([1, 2], np.int32))
    writer.operator("MEAN", [second, axes], [pooled], schema.ReducerOptionsT(), 2)
    weights = writer.tensor(
        "dense", (4, channels), scales=(0.01,),
        values=rng.integers(-127, 128, (4, channels)).astype(np.int8),
    )  # fmt: skip
    biases = writer.tensor(
        "dense bias", (4,), "INT32", scales=(5e-4,), values=np.zeros(4, np.int32)
    )
    options = schema.FullyConnectedOptionsT()
    writer.operator("FULLY_CONNECTED", [pooled, weights, biases], [logits], options, 4)
    softmax = schema.SoftmaxOptionsT()
    softmax.beta = 1.0
    writer.operator("SOFTMAX", [logits], [scores], softmax, 2)
    return writer.finish([image], [scores])


def accumulator() -> bytes:
    """`total` += `x`: a resource variable that one inference leaves to the next."""
    writer = Writer()
    x = writer.tensor("x", (1, 4), "FLOAT32")
    handle = writer.tensor("handle", (1,), "RESOURCE")
    before = writer.tensor("before", (1, 4), "FLOAT32")
    total = writer.tensor("total", (1, 4), "FLOAT32")
    options = schema.VarHandleOptionsT()
    options.container, options.sharedName = b"", b"total"
    writer.operator("VAR_HANDLE", [], [handle], options)
    writer.operator("READ_VARIABLE", [handle], [before], schema.ReadVariableOptionsT())
    writer.operator("ADD", [before, x], [total], schema.AddOptionsT())
    writer.operator("ASSIGN_VARIABLE", [handle, total], [], schema.AssignVariableOptionsT())
    return writer.finish([x], [total])


def network(sizes: Sequence[int] = (16, 12, 4), seed: int = 0) -> list[tuple[Any, Any]]:
    """Seeded layers for `dense`."""
    rng = np.random.default_rng(seed)
    return [
        (rng.normal(size=(a, b)) / np.sqrt(a), rng.normal(size=b) * 0.1) for a, b in pairwise(sizes)
    ]


def reference(layers: Sequence[tuple[Any, Any]], rows: NDArray[Any]) -> NDArray[Any]:
    """What `dense` computes, in floats."""
    for weights, biases in layers[:-1]:
        rows = np.maximum(rows @ weights + biases, 0)
    result: NDArray[Any] = rows @ layers[-1][0] + layers[-1][1]
    return result


def _affine(values: NDArray[Any]) -> tuple[float, int]:
    low, high = min(float(values.min()), 0.0), max(float(values.max()), 0.0)
    scale = (high - low) / 255
    return scale, round(-128 - low / scale)


def _signature(inputs: dict[str, int], outputs: dict[str, int]) -> Any:
    signature = schema.SignatureDefT()
    signature.signatureKey, signature.subgraphIndex = b"serving_default", 0
    signature.inputs = [_mapped(name, index) for name, index in inputs.items()]
    signature.outputs = [_mapped(name, index) for name, index in outputs.items()]
    return signature


def _mapped(name: str, index: int) -> Any:
    entry = schema.TensorMapT()
    entry.name, entry.tensorIndex = name.encode(), index
    return entry
