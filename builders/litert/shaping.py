"""Operators that move, pick, join and reduce elements, and products of matrices."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf

from graph import Node, Value, operator, to_first, to_last

if TYPE_CHECKING:
    from collections.abc import Callable


def _last_axis(axis: int, rank: int) -> int:
    """Where an axis of ONNX's order is, channels-last."""
    return to_last(rank).index(axis)


def _along(value: Value, axis: int, function: Callable[[Any, int], Any]) -> Any:
    """A function along one axis, in the order that the value has; the result's constructor too."""
    rank = value.rank
    axis %= rank
    if value.made_last:
        return function(value.last, _last_axis(axis, rank)), lambda x: Value(last=x)
    return function(value.first, axis), Value


@operator("Reshape", "Flatten")
def _reshape(node: Node) -> Value:
    value = node.input()
    shape = value.shape
    if node.operator == "Flatten":
        axis = node.attribute("axis", 1)
        axis = axis if axis >= 0 else axis + len(shape)
        target = [int(np.prod(shape[:axis])), int(np.prod(shape[axis:]))]
    else:
        target = [int(n) for n in node.constant(1)]
        if not node.attribute("allowzero", 0):
            target = [shape[i] if n == 0 else n for i, n in enumerate(target)]
    if -1 in target:
        known = -int(np.prod(target))
        target = [int(np.prod(shape)) // known if n == -1 else n for n in target]
    return Value(tf.reshape(value.first, target), nonnegative=value.nonnegative)


@operator("Squeeze", "Unsqueeze")
def _squeeze(node: Node) -> Value:
    value = node.input()
    shape = list(value.shape)
    if node.operator == "Squeeze":
        axes = node.axes()
        axes = [i for i, n in enumerate(shape) if n == 1] if axes is None else axes
        target = [n for i, n in enumerate(shape) if i not in axes]
    else:
        given = node.constant(1, node.attribute("axes"))
        rank = len(shape) + len(np.atleast_1d(given))
        target = list(shape)
        for axis in sorted(int(a) % rank for a in np.atleast_1d(given)):
            target.insert(axis, 1)
    return Value(tf.reshape(value.first, target), nonnegative=value.nonnegative)


@operator("Transpose")
def _transpose(node: Node) -> Value:
    value = node.input()
    order = list(node.attribute("perm", list(range(value.rank))[::-1]))
    if value.rank > 2 and value.made_last and order == to_last(value.rank):
        return Value(value.last, nonnegative=value.nonnegative)
    if value.rank > 2 and not value.made_last and order == to_first(value.rank):
        return Value(last=value.first, nonnegative=value.nonnegative)
    return Value(tf.transpose(value.first, order), nonnegative=value.nonnegative)


@operator("Concat")
def _concat(node: Node) -> Value:
    values = [node.input(index) for index in range(len(node.inputs))]
    rank = values[0].rank
    axis = node.attribute("axis") % rank
    signs = all(value.nonnegative for value in values)
    if any(value.made_last for value in values):
        parts = [value.last for value in values]
        return Value(last=tf.concat(parts, _last_axis(axis, rank)), nonnegative=signs)
    return Value(tf.concat([value.first for value in values], axis), nonnegative=signs)


@operator("Split")
def _split(node: Node) -> list[Value]:
    value = node.input()
    axis = node.attribute("axis", 0) % value.rank
    sizes = node.constant(1, node.attribute("split"))
    if sizes is None:
        total, parts = value.shape[axis], node.outputs
        size = -(-total // parts)
        sizes = [min(size, total - size * index) for index in range(parts)]
    found, make = _along(value, axis, lambda x, a: tf.split(x, [int(n) for n in sizes], a))
    return [make(part) for part in found]


@operator("Slice")
def _slice(node: Node) -> Value:
    value = node.input()
    starts = node.constant(1, node.attribute("starts"))
    ends = node.constant(2, node.attribute("ends"))
    axes = node.constant(3, node.attribute("axes"))
    axes = range(len(starts)) if axes is None else axes
    steps = node.constant(4, [1] * len(starts))
    slices = [slice(None)] * value.rank
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        size = value.shape[axis]
        cut = slice(int(start), int(end), int(step)).indices(size)
        stop: int | None = cut[1]
        slices[axis] = slice(cut[0], None if stop is not None and stop < 0 else stop, cut[2])
    if value.made_last:
        ordered = tuple(slices[axis] for axis in to_last(value.rank))
        return Value(last=value.last[ordered], nonnegative=value.nonnegative)
    return Value(value.first[tuple(slices)], nonnegative=value.nonnegative)


@operator("Gather")
def _gather(node: Node) -> Value:
    value, indices = node.input(0), node.input(1)
    axis = node.attribute("axis", 0) % value.rank
    known = indices.constant
    if known is not None:  # ONNX counts negative indices from the end
        where = np.where(known < 0, known + value.shape[axis], known).astype(np.int32)
        return Value(tf.gather(value.first, where, axis=axis))
    where = tf.cast(indices.first, tf.int32)
    return Value(tf.gather(value.first, where, axis=axis))


@operator("GatherND")
def _gather_nd(node: Node) -> Value:
    where = tf.cast(node.input(1).first, tf.int32)
    return Value(
        tf.gather_nd(node.input().first, where, batch_dims=node.attribute("batch_dims", 0))
    )


@operator("Expand")
def _expand(node: Node) -> Value:
    value = node.input()
    shape = np.broadcast_shapes(tuple(value.shape), tuple(int(n) for n in node.constant(1)))
    return Value(tf.broadcast_to(value.first, shape), nonnegative=value.nonnegative)


@operator("Tile")
def _tile(node: Node) -> Value:
    counts = [int(n) for n in node.constant(1)]
    return Value(tf.tile(node.input().first, counts), nonnegative=node.input().nonnegative)


@operator("Shape", "Size")
def _shape(node: Node) -> Value:
    shape = np.asarray(node.input().shape, np.int64)
    if node.operator == "Size":
        return Value(np.asarray(shape.prod()))
    return Value(shape[node.attribute("start", 0) : node.attribute("end", len(shape))])


@operator("ConstantOfShape", "Range", "EyeLike")
def _made(node: Node) -> Value:
    raise node.refuse("makes a tensor whose shape depends on the input")


@operator("Softmax", "LogSoftmax")
def _softmax(node: Node) -> Value:
    value = node.input()
    function = tf.nn.softmax if node.operator == "Softmax" else tf.nn.log_softmax
    axis = node.attribute("axis", -1 if node.opset >= 13 else 1) % value.rank
    if node.opset < 13 and axis != value.rank - 1:
        raise node.refuse("normalises over several dimensions, as before opset 13")
    found, make = _along(value, axis, lambda x, a: _normalised(function, x, a))
    return make(found)


def _normalised(function: Callable[[Any], Any], x: Any, axis: int) -> Any:
    """Along any axis; TFLite does so along the last."""
    last = len(x.shape) - 1
    if axis == last:
        return function(x)
    order = [*(i for i in range(last + 1) if i != axis), axis]
    back = [order.index(i) for i in range(last + 1)]
    return tf.transpose(function(tf.transpose(x, order)), back)


_REDUCTIONS: dict[str, Callable[..., Any]] = {
    "ReduceMean": tf.reduce_mean, "ReduceSum": tf.reduce_sum, "ReduceMax": tf.reduce_max,
    "ReduceMin": tf.reduce_min, "ReduceProd": tf.reduce_prod,
    "ReduceL1": lambda x, *a, **k: tf.reduce_sum(tf.abs(x), *a, **k),
    "ReduceL2": lambda x, *a, **k: tf.sqrt(tf.reduce_sum(x * x, *a, **k)),
    "ReduceSumSquare": lambda x, *a, **k: tf.reduce_sum(x * x, *a, **k),
}  # fmt: skip


@operator(*_REDUCTIONS)
def _reduce(node: Node) -> Value:
    value, axes = node.input(), node.axes()
    if axes is None:
        if node.attribute("noop_with_empty_axes", 0):
            return value
        axes = list(range(value.rank))
    keep = bool(node.attribute("keepdims", 1))
    function = _REDUCTIONS[node.operator]
    spatial = value.made_last and (keep or (0 not in axes and 1 not in axes))
    if spatial and (keep or len(axes) == value.rank - 2):
        found = function(value.last, [_last_axis(a, value.rank) for a in axes], keepdims=keep)
        return Value(last=found) if keep else Value(found)
    return Value(function(value.first, axes, keepdims=keep))


@operator("ArgMax", "ArgMin")
def _arg(node: Node) -> Value:
    function = tf.argmax if node.operator == "ArgMax" else tf.argmin
    if node.attribute("select_last_index", 0):
        raise node.refuse("takes the last of equal elements")
    axis = node.attribute("axis", 0) % node.input().rank
    found = function(node.input().first, axis, output_type=tf.int64)
    return Value(tf.expand_dims(found, axis) if node.attribute("keepdims", 1) else found)


@operator("TopK")
def _top_k(node: Node) -> list[Value]:
    value = node.input()
    axis = node.attribute("axis", -1) % value.rank
    if axis != value.rank - 1 or not node.attribute("largest", 1):
        raise node.refuse("takes the smallest, or not along the last dimension")
    found = tf.math.top_k(value.first, int(np.reshape(node.constant(1), ())))
    return [Value(found.values), Value(tf.cast(found.indices, tf.int64))]


@operator("CumSum")
def _cumulative(node: Node) -> Value:
    axis = int(np.reshape(node.constant(1), ()))
    exclusive, back = bool(node.attribute("exclusive", 0)), bool(node.attribute("reverse", 0))
    return Value(tf.cumsum(node.input().first, axis, exclusive=exclusive, reverse=back))


@operator("OneHot")
def _one_hot(node: Node) -> Value:
    off, on = np.asarray(node.constant(2))
    depth = int(np.reshape(node.constant(1), ()))
    indices = tf.cast(node.input().first, tf.int32)
    return Value(tf.one_hot(indices, depth, on, off, node.attribute("axis", -1)))


@operator("MatMul")
def _mat_mul(node: Node) -> Value:
    left, right = node.input(0), node.input(1)
    if right.constant is not None and right.rank == 2 and left.rank > 2:
        *outer, inner = left.shape  # one matrix for all of a stack
        flat = tf.matmul(tf.reshape(left.first, [-1, inner]), right.first)
        return Value(tf.reshape(flat, [*outer, right.shape[1]]))
    x = left.first if left.rank > 1 else tf.expand_dims(left.first, 0)
    y = right.first if right.rank > 1 else tf.expand_dims(right.first, -1)
    found = tf.matmul(x, y)
    if left.rank == 1:
        found = tf.squeeze(found, -2)
    return Value(tf.squeeze(found, -1) if right.rank == 1 else found)


@operator("Gemm")
def _gemm(node: Node) -> Value:
    x, weights = node.input(0).first, node.input(1)
    left, right = bool(node.attribute("transA", 0)), bool(node.attribute("transB", 0))
    matrix = weights.first
    alpha, beta = node.attribute("alpha", 1.0), node.attribute("beta", 1.0)
    if weights.constant is not None:
        matrix, right = np.ascontiguousarray(matrix.T) if right else matrix, False
        matrix, alpha = matrix * np.float32(alpha), 1.0
    found = tf.matmul(x, matrix, left, right)
    found = found if alpha == 1 else found * np.float32(alpha)
    if not node.given(2):
        return Value(found)
    bias = node.input(2).first
    return Value(found + (bias if beta == 1 else bias * np.float32(beta)))


@operator("Einsum")
def _einsum(node: Node) -> Value:
    operands = [node.input(index).first for index in range(len(node.inputs))]
    return Value(tf.einsum(node.attribute("equation"), *operands))


@operator("Trilu", "NonZero", "ScatterND", "ScatterElements", "GatherElements", "NonMaxSuppression")
def _absent(node: Node) -> Value:
    raise node.refuse("has no form in TFLite with static shapes")
