"""The optimize action: int8 with QuantizeLinear/DequantizeLinear pairs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx

from calibration import Batches, batch_size
from edgectl.build.kit.data import calibration as read_calibration
from edgectl.build.kit.onnxfile import finish, save
from edgectl.build.protocol import Done, RefusalError, Task, report
from runtime import open_session, session_options

if TYPE_CHECKING:
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
"""What suits an x86 or Arm CPU."""

WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")
"""Operators that int8 speeds up."""
FOLLOWING = (
    "Add", "AveragePool", "Clip", "Concat", "Flatten", "GlobalAveragePool", "LeakyRelu", "MaxPool",
    "Mul", "Pad", "Relu", "Reshape", "Resize", "Split", "Squeeze", "Transpose", "Unsqueeze",
)  # fmt: skip
"""Operators that may stay in int8 between them. Not Softmax and Sigmoid: 256 steps are too few for
a probability, and they are a millionth of the work."""


def optimize(task: Task) -> Done:
    """Quantise to int8 with QuantizeLinear/DequantizeLinear pairs, or pass fp32 through.

    Roles: `model`, and `calibration` for int8. Params: `precision` (int8 or fp32), and for int8
    `activations` and `weights` (uint8 or int8), `symmetricActivations`, `perChannel`, `reduceRange`
    (see `quantize`), `method` (minmax, entropy, percentile) and `percentile`; DEFAULTS hold where
    they are absent.
    """
    target = Path("model.onnx")
    if task.params["precision"] == "fp32":
        target.write_bytes(task.inputs["model"].read_bytes())
        return Done({"model": target.name}, {"precision": "fp32"})
    if task.params["precision"] != "int8":
        raise RefusalError(
            "unsupported-precision",
            f"this builder makes int8 and fp32, not {task.params['precision']}",
            hint="set optimize.precision of the Model, or precisions of the Target",
        )
    report(0.1, "reading calibration data")
    data = read_calibration(task)
    report(0.2, f"calibrating on {len(next(iter(data.values())))} samples")
    quantize(task.inputs["model"], target, data, DEFAULTS | task.params)
    quantized = onnx.load_model(target)
    pairs = sum(node.op_type == "QuantizeLinear" for node in quantized.graph.node)
    if not pairs:
        raise RefusalError(
            "nothing-to-quantize",
            "the model has no node that int8 can speed up",
            hint="set optimize.precision: fp32",
        )
    finish(quantized, task.model)
    save(quantized, target)
    report(0.9, "checking that it loads")
    open_session(target.read_bytes(), session_options())
    return Done({"model": target.name}, {"precision": "int8", "quantizeLinear": pairs})


def quantize(
    source: Path, target: Path, data: dict[str, np.ndarray], params: dict[str, Any]
) -> None:
    """Static quantisation by onnxruntime.quantization.

    With symmetric activations the result is what TensorRT takes as explicit quantisation (from 10
    on): s8 on both sides with zero points 0, one pair for each consumer, and float biases, since
    TensorRT refuses the int32 ones.

    A reduced range leaves weights 7 of their 8 bits. An x86 CPU with AVX2 or AVX-512 and without
    VNNI adds two products of u8 and s8 in 16 bits, which saturate: 2 x 255 x 127 is too much, and
    2 x 255 x 64 is not.
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
