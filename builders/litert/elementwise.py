"""Operators that work on each element: they keep whatever order their operands have."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf

from graph import Node, Value, operator, to_last

if TYPE_CHECKING:
    from collections.abc import Callable

UNARY: dict[str, Callable[[Any], Any]] = {
    "Abs": tf.abs, "Ceil": tf.math.ceil, "Cos": tf.cos, "Exp": tf.exp, "Floor": tf.floor,
    "Identity": lambda x: x, "Log": tf.math.log, "Neg": tf.negative, "Not": tf.logical_not,
    "Reciprocal": lambda x: tf.math.divide(np.float32(1), x), "Relu": tf.nn.relu,
    "Round": tf.round, "Sigmoid": tf.sigmoid, "Sign": tf.sign, "Sin": tf.sin, "Sqrt": tf.sqrt,
    "Softsign": lambda x: x / (1 + tf.abs(x)), "Tanh": tf.tanh, "Dropout": lambda x: x,
    "HardSwish": lambda x: x * tf.nn.relu6(x + 3) * np.float32(1 / 6),
    # log(1 + e^x) without the overflow of large x.
    "Softplus": lambda x: tf.nn.relu(x) + tf.math.log(1 + tf.exp(-tf.abs(x))),
    "Mish": lambda x: x * tf.tanh(tf.nn.relu(x) + tf.math.log(1 + tf.exp(-tf.abs(x)))),
}  # fmt: skip
BINARY: dict[str, Callable[[Any, Any], Any]] = {
    "Add": tf.add, "And": tf.logical_and, "Div": tf.divide, "Equal": tf.equal,
    "Greater": tf.greater, "GreaterOrEqual": tf.greater_equal, "Less": tf.less,
    "LessOrEqual": tf.less_equal, "Mul": tf.multiply, "Or": tf.logical_or, "Sub": tf.subtract,
    "Xor": tf.math.logical_xor,
}  # fmt: skip
_NONNEGATIVE = {"Abs", "Exp", "Relu", "Sigmoid", "Softplus", "Sqrt"}
_KEEPS_SIGN = {"Identity", "Dropout", "Ceil", "Floor", "Round"}


def mapped(value: Value, function: Callable[[Any], Any], *, nonnegative: bool = False) -> Value:
    """A function of each element."""
    if value.made_last:
        return Value(last=function(value.last), nonnegative=nonnegative)
    return Value(function(value.first), nonnegative=nonnegative)


def joined(values: list[Value], function: Callable[..., Any], **kinds: bool) -> Value:
    """A function of operands that broadcast as numpy's do."""
    rank = max(value.rank for value in values)
    if any(value.made_last for value in values):
        operands = [_broadcast_last(value, rank) for value in values]
        if all(operand is not None for operand in operands):
            return Value(last=function(*operands), **kinds)
    return Value(function(*(value.first for value in values)), **kinds)


def _broadcast_last(value: Value, rank: int) -> Any:
    """A channels-last operand of a given rank; None where that would need a transposition."""
    if value.rank == rank and (value.made_last or value.constant is not None):
        return value.last
    if value.constant is not None:
        shape = [1] * (rank - value.rank) + list(value.constant.shape)
        return np.transpose(value.constant.reshape(shape), to_last(rank))
    if value.rank == rank and rank > 2 and all(size == 1 for size in value.shape[2:]):
        return tf.reshape(value.first, [value.shape[0], *value.shape[2:], value.shape[1]])
    return value.last if value.rank == rank else None


@operator(*UNARY)
def _unary(node: Node) -> Value:
    value = node.input()
    kept = node.operator in _KEEPS_SIGN and value.nonnegative
    function = UNARY[node.operator]
    return mapped(value, function, nonnegative=kept or node.operator in _NONNEGATIVE)


@operator(*BINARY)
def _binary(node: Node) -> Value:
    operands = [node.input(0), node.input(1)]
    if node.operator == "Div" and not _is_float(operands[0]):
        return joined(operands, tf.math.floordiv)  # ONNX cuts, and negative sizes do not occur
    signs = node.operator in {"Add", "Mul"} and all(value.nonnegative for value in operands)
    result = joined(operands, BINARY[node.operator], nonnegative=signs)
    result.origin = _step(node.operator, *operands)
    if result.origin is not None and result.origin[0] == "gelu":
        return mapped(result.origin[1], lambda x: tf.nn.gelu(x, approximate=False))
    return result


def _step(name: str, left: Value, right: Value) -> tuple[str, Value, float] | None:
    """Where a result stands in x/2 (1 + erf(x/√2)), which exporters write GELU as.

    One operator quantises better than five, of which TFLite has no erf.
    """
    for value, other in ((left, right), (right, left)):
        factor = _scalar(other)
        if name == "Div" and other is right and factor:
            return "scaled", value, 1 / factor
        if name == "Mul" and factor is not None:
            doubled = value.origin is not None and value.origin[0] == "x(1+erf)"
            if doubled and value.origin is not None and factor == 0.5:
                return "gelu", value.origin[1], 1
            return "scaled", value, factor
        if value.origin is None:
            continue
        kind, argument, _ = value.origin
        if name == "Add" and kind == "erf" and factor == 1:
            return "1+erf", argument, 1
        if name == "Mul" and kind == "1+erf":
            if other is argument:
                return "x(1+erf)", argument, 1
            if other.origin is not None and other.origin[:2] == ("scaled", argument):
                return ("gelu", argument, 1) if other.origin[2] == 0.5 else None
    return None


def _scalar(value: Value) -> float | None:
    known = value.constant
    return float(known.reshape(())) if known is not None and known.size == 1 else None


def _is_float(value: Value) -> bool:
    dtype = value.first.dtype if value.constant is not None or not value.made_last else None
    return dtype is None or tf.as_dtype(dtype).is_floating


@operator("Max", "Min", "Sum", "Mean")
def _variadic(node: Node) -> Value:
    functions = {"Max": tf.maximum, "Min": tf.minimum, "Sum": tf.add, "Mean": tf.add}
    result = node.input(0)
    for index in range(1, len(node.inputs)):
        result = joined([result, node.input(index)], functions[node.operator])
    if node.operator == "Mean":
        return mapped(result, lambda x: x * np.float32(1 / len(node.inputs)))
    return result


@operator("Pow")
def _pow(node: Node) -> Value:
    exponent = node.input(1).constant
    if exponent is not None and exponent.size == 1:
        power = float(exponent.reshape(()))
        if power == 2:
            return mapped(node.input(), lambda x: x * x, nonnegative=True)
        if power == 0.5:
            return mapped(node.input(), tf.sqrt, nonnegative=True)
    return joined([node.input(0), node.input(1)], lambda x, y: tf.pow(x, tf.cast(y, x.dtype)))


@operator("Mod")
def _mod(node: Node) -> Value:
    if node.attribute("fmod", 0):
        return joined([node.input(0), node.input(1)], tf.truncatemod)
    return joined([node.input(0), node.input(1)], tf.math.floormod)


@operator("Where")
def _where(node: Node) -> Value:
    return joined([node.input(index) for index in range(3)], tf.where)


@operator("Clip")
def _clip(node: Node) -> Value:
    low = node.constant(1, node.attribute("min"))
    high = node.constant(2, node.attribute("max"))
    low = None if low is None else float(np.reshape(low, ()))
    high = None if high is None else float(np.reshape(high, ()))

    def clip(x: Any) -> Any:
        if low == 0 and high == 6:
            return tf.nn.relu6(x)
        if low == 0:
            x = tf.nn.relu(x)
        elif low is not None:
            x = tf.maximum(x, tf.cast(low, x.dtype))
        return x if high is None else tf.minimum(x, tf.cast(high, x.dtype))

    return mapped(node.input(), clip, nonnegative=low is not None and low >= 0)


@operator("Cast")
def _cast(node: Node) -> Value:
    import onnx

    dtype = tf.as_dtype(onnx.helper.tensor_dtype_to_np_dtype(node.attribute("to")))
    return mapped(node.input(), lambda x: tf.cast(x, dtype), nonnegative=node.input().nonnegative)


@operator("LeakyRelu", "Elu", "Selu", "Celu", "HardSigmoid", "ThresholdedRelu")
def _activation(node: Node) -> Value:
    alpha = node.attribute("alpha")
    functions: dict[str, Callable[[Any], Any]] = {
        "LeakyRelu": lambda x: tf.nn.leaky_relu(x, 0.01 if alpha is None else alpha),
        "Elu": lambda x: _elu(x, 1.0 if alpha is None else alpha),
        "Celu": lambda x: _celu(x, 1.0 if alpha is None else alpha),
        "Selu": lambda x: _elu(x, 1.67326319 if alpha is None else alpha)
        * np.float32(node.attribute("gamma", 1.05070102)),
        "HardSigmoid": lambda x: tf.minimum(
            tf.nn.relu(x * np.float32(0.2 if alpha is None else alpha)
                       + np.float32(node.attribute("beta", 0.5))), np.float32(1)),
        "ThresholdedRelu": lambda x: tf.where(x > (1.0 if alpha is None else alpha), x, 0.0),
    }  # fmt: skip
    return mapped(
        node.input(), functions[node.operator], nonnegative=node.operator == "HardSigmoid"
    )


def _elu(x: Any, alpha: float) -> Any:
    if alpha == 1:
        return tf.nn.elu(x)
    return tf.nn.relu(x) + np.float32(alpha) * (tf.exp(tf.minimum(x, np.float32(0))) - 1)


def _celu(x: Any, alpha: float) -> Any:
    low = tf.exp(tf.minimum(x, np.float32(0)) * np.float32(1 / alpha)) - 1
    return tf.nn.relu(x) + np.float32(alpha) * low


@operator("PRelu")
def _prelu(node: Node) -> Value:
    return joined(
        [node.input(0), node.input(1)],
        lambda x, slope: tf.nn.relu(x) + slope * tf.minimum(x, np.float32(0)),
    )


@operator("Gelu")
def _gelu(node: Node) -> Value:
    approximate = node.attribute("approximate", "none") == "tanh"
    return mapped(node.input(), lambda x: tf.nn.gelu(x, approximate=approximate))


@operator("Erf")
def _erf(node: Node) -> Value:
    """By GELU, which TFLite has: gelu(x) = x (1 + erf(x/√2)) / 2.

    Where x is near 0 that is a quotient of two small numbers; there the series takes its place.
    """

    def erf(x: Any) -> Any:
        z = x * np.float32(np.sqrt(2))
        small = tf.abs(x) < np.float32(0.05)
        safe = tf.where(small, tf.ones_like(z), z)
        series = x * (1 - x * x * np.float32(1 / 3)) * np.float32(2 / np.sqrt(np.pi))
        return tf.where(small, series, 2 * tf.nn.gelu(safe, approximate=False) / safe - 1)

    result = mapped(node.input(), erf)
    origin = node.input().origin
    if origin is not None and origin[0] == "scaled" and np.isclose(origin[2], np.sqrt(0.5)):
        result.origin = "erf", origin[1], 1
    return result
