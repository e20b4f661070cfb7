"""Int8: with QuantizeLinear/DequantizeLinear pairs, or scaled as the data comes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx

from calibration import Batches, batch_size
from edgectl.build.kit.data import calibration as read_calibration
from edgectl.build.kit.instructions import saturates
from edgectl.build.kit.onnxfile import save
from edgectl.build.protocol import RefusalError, Task, report

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np

DEFAULTS: dict[str, Any] = {
    "activations": "uint8",
    "weights": "int8",
    "symmetricActivations": False,
    "perChannel": True,
    "reduceRange": False,
    "method": "minmax",
    "percentile": 99.99,
}
"""What suits an Arm CPU, or an x86 one with VNNI."""
TENSORRT = "TensorrtExecutionProvider"

WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")
"""Operators that int8 speeds up."""
FOLLOWING = (
    "Add", "AveragePool", "Clip", "Concat", "Flatten", "GlobalAveragePool", "LeakyRelu", "MaxPool",
    "Mul", "Pad", "Relu", "Reshape", "Resize", "Split", "Squeeze", "Transpose", "Unsqueeze",
)  # fmt: skip
"""Operators that may stay in int8 between them. Not Softmax and Sigmoid: 256 steps are too few for
a probability, and they are a millionth of the work."""


DYNAMIC = ("MatMul", "Gemm", "LSTM", "Attention")
"""Operators that are quantised without calibration. Not Conv: ConvInteger is slower than float."""
MADE_DYNAMIC = ("MatMulInteger", "DynamicQuantizeMatMul", "DynamicQuantizeLSTM", "QAttention")


def settings(params: Mapping[str, Any]) -> dict[str, Any]:
    """What the target says of int8, and for the rest what suits its hardware."""
    fitting = dict(DEFAULTS)
    if for_tensorrt(params):
        fitting |= {"activations": "int8", "symmetricActivations": True}
    else:
        fitting["reduceRange"] = saturates(params.get("cpuFeatures") or ())
    return fitting | {key: params[key] for key in fitting if params.get(key) is not None}


def for_tensorrt(params: Mapping[str, Any]) -> bool:
    """Whether TensorRT computes the model, as an engine or under ONNX Runtime."""
    return params.get("engine") == "tensorrt" or TENSORRT in (params.get("providers") or ())


def to_static(model: onnx.ModelProto, task: Task) -> tuple[onnx.ModelProto, dict[str, Any]]:
    """Int8 with QuantizeLinear/DequantizeLinear pairs, scaled on calibration data.

    Roles: `calibration`. Params: `activations` and `weights` (uint8 or int8),
    `symmetricActivations`, `perChannel`, `reduceRange` (see `quantize`), `method` (minmax, entropy,
    percentile) and `percentile`; `settings` fills in what is absent. Refuses a model that has
    nothing to quantise (`nothing-to-quantize`).
    """
    report(0.1, "reading calibration data")
    data = read_calibration(task)
    report(0.2, f"calibrating on {len(next(iter(data.values())))} samples")
    source, target = Path("float.onnx"), Path("static.onnx")
    save(model, source)
    chosen = settings(task.params)
    quantize(source, target, data, chosen)
    quantized = onnx.load_model(target)
    source.unlink()
    target.unlink()
    pairs = sum(node.op_type == "QuantizeLinear" for node in quantized.graph.node)
    if not pairs:
        raise _nothing("no node that int8 can speed up")
    facts = {"quantizeLinear": pairs, "calibration": {"method": chosen["method"]}}
    return quantized, {"scheme": "static", **facts}


def to_dynamic(model: onnx.ModelProto, task: Task) -> tuple[onnx.ModelProto, dict[str, Any]]:
    """Int8 weights; activations are scaled as they come, on the device, without calibration data.

    For transformers and recurrent networks on a CPU, whose activations no fixed range suits. Params
    as `to_static`. Refuses TensorRT, which reads no such model (`unsupported-scheme`), and a model
    without a matrix to quantise (`nothing-to-quantize`).
    """
    from onnxruntime import quantization

    if for_tensorrt(task.params):
        raise RefusalError(
            "unsupported-scheme",
            "TensorRT reads no dynamically quantised model",
            hint="set quantization.scheme: static of the Target, and calibration data of the Model",
        )
    report(0.2, "quantising weights")
    chosen = settings(task.params)
    source, target = Path("float.onnx"), Path("dynamic.onnx")
    save(model, source)
    types = {"int8": quantization.QuantType.QInt8, "uint8": quantization.QuantType.QUInt8}
    quantization.quantize_dynamic(
        source,
        target,
        op_types_to_quantize=list(DYNAMIC),
        per_channel=bool(chosen["perChannel"]),
        reduce_range=bool(chosen["reduceRange"]),
        weight_type=types[chosen["weights"]],
        extra_options={"MatMulConstBOnly": True},
    )
    quantized = onnx.load_model(target)
    source.unlink()
    target.unlink()
    made = sum(node.op_type in MADE_DYNAMIC for node in quantized.graph.node)
    if not made:
        raise _nothing(f"no {', '.join(DYNAMIC)} with constant weights")
    return quantized, {"scheme": "dynamic", "integerProducts": made}


def _nothing(what: str) -> RefusalError:
    return RefusalError(
        "nothing-to-quantize", f"the model has {what}", hint="set optimize.precision: fp32"
    )


def quantize(
    source: Path, target: Path, data: dict[str, np.ndarray], params: dict[str, Any]
) -> None:
    """Static quantisation by onnxruntime.quantization.

    With symmetric activations the result is what TensorRT takes as explicit quantisation (from 10
    on): s8 on both sides with zero points 0, one pair for each consumer, and float biases, since
    TensorRT refuses the int32 ones.

    A reduced range leaves weights 7 of their 8 bits (see `edgectl.build.kit.instructions`).
    """
    from onnxruntime import quantization
    from onnxruntime.quantization.shape_inference import quant_pre_process

    methods = {
        "minmax": quantization.CalibrationMethod.MinMax,
        "entropy": quantization.CalibrationMethod.Entropy,
        "percentile": quantization.CalibrationMethod.Percentile,
    }
    symmetric = bool(params["symmetricActivations"])
    options: dict[str, Any] = {
        "ActivationSymmetric": symmetric,
        "WeightSymmetric": True,
        "QuantizeBias": not symmetric,
        "DedicatedQDQPair": symmetric,
        "QDQOpTypePerChannelSupportToAxis": {"MatMul": 1},
    }
    if params["method"] == "percentile":
        options["CalibPercentile"] = float(params["percentile"])
    if params["method"] == "entropy":
        options["CalibTensorRangeSymmetric"] = symmetric
    prepared = Path("prepared.onnx")
    quant_pre_process(source, prepared, skip_symbolic_shape=True)
    model = onnx.load_model(prepared)
    flatten_gemm_biases(model.graph)
    save(model, prepared)
    types = {"int8": quantization.QuantType.QInt8, "uint8": quantization.QuantType.QUInt8}
    quantization.quantize_static(
        prepared,
        target,
        Batches(data, batch_size(model, len(next(iter(data.values()))))),
        quant_format=quantization.QuantFormat.QDQ,
        op_types_to_quantize=[*WEIGHTED, *FOLLOWING],
        nodes_to_exclude=in_real_units(model.graph),
        per_channel=bool(params["perChannel"]),
        activation_type=types[params["activations"]],
        weight_type=types[params["weights"]],
        reduce_range=bool(params["reduceRange"]),
        calibrate_method=methods[params["method"]],
        extra_options=options,
    )
    prepared.unlink()


def flatten_gemm_biases(graph: onnx.GraphProto) -> None:
    """Make a Gemm's bias of shape [1, n] one of [n]: per-channel quantisation indexes it so."""
    biases = {node.input[2] for node in graph.node if node.op_type == "Gemm" and node.input[2:]}
    others = {
        name
        for node in graph.node
        for name in (node.input[:2] if node.op_type == "Gemm" else node.input)
    }
    for tensor in graph.initializer:
        if tensor.name in biases - others and len(tensor.dims) == 2 and tensor.dims[0] == 1:
            del tensor.dims[0]


def in_real_units(graph: onnx.GraphProto) -> list[str]:
    """Names of the nodes that no weighted node feeds, except through an operator left in float.

    One scale for a whole tensor suits what lies between the layers of a network. It does not suit
    a table whose columns differ by orders of magnitude, so a standardisation inside the model stays
    in float; nor probabilities, so what follows a Softmax does too.
    """
    fed: set[str] = set()
    outside = []
    for node in graph.node:
        if node.op_type in WEIGHTED or (node.op_type in FOLLOWING and fed & set(node.input)):
            fed |= set(node.output)
        else:
            outside.append(node.name)
    return outside
