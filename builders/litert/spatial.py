"""Convolution, pooling, resizing and normalisation: channels-last, as TFLite has them."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from elementwise import mapped
from graph import Node, Value, operator, to_last


def _pads(node: Node, size: list[int], kernel: list[int], strides: list[int],
          dilations: list[int]) -> list[tuple[int, int]]:  # fmt: skip
    """Padding before and after each spatial dimension, `auto_pad` and `ceil_mode` resolved."""
    mode = node.attribute("auto_pad", "NOTSET")
    count = len(size)
    reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
    if mode in {"SAME_UPPER", "SAME_LOWER"}:
        pads = []
        for n, s, r in zip(size, strides, reach, strict=True):
            total = max((-(-n // s) - 1) * s + r - n, 0)
            small, large = total // 2, total - total // 2
            pads.append((small, large) if mode == "SAME_UPPER" else (large, small))
        return pads
    flat = node.attribute("pads", [0] * 2 * count) if mode == "NOTSET" else [0] * 2 * count
    pads = list(zip(flat[:count], flat[count:], strict=True))
    if node.attribute("ceil_mode", 0):
        for index, (n, s, r) in enumerate(zip(size, strides, reach, strict=True)):
            before, after = pads[index]
            steps = -(-(n + before + after - r) // s)
            steps -= steps * s >= n + before  # a window has to start in the input
            pads[index] = (before, max(after, steps * s + r - n - before))
    return pads


def _is_same(size: list[int], reach: list[int], strides: list[int],
             pads: list[tuple[int, int]]) -> bool:  # fmt: skip
    """Whether TensorFlow's SAME pads alike."""
    for n, r, s, pad in zip(size, reach, strides, pads, strict=True):
        total = max((-(-n // s) - 1) * s + r - n, 0)
        if pad != (total // 2, total - total // 2):
            return False
    return True


def _padded(x: Any, pads: list[tuple[int, int]], mode: str = "CONSTANT") -> Any:
    if not any(before or after for before, after in pads):
        return x
    return tf.pad(x, [(0, 0), *pads, (0, 0)], mode)


def _window(node: Node, kernel: list[int]) -> tuple[list[int], list[int], list[int]]:
    """Strides, dilations, and how far a window reaches."""
    strides = list(node.attribute("strides", [1] * len(kernel)))
    dilations = list(node.attribute("dilations", [1] * len(kernel)))
    return strides, dilations, [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]


@operator("Conv")
def _conv(node: Node) -> Value:
    value, weights = node.input(0), np.asarray(node.constant(1))
    kernel = list(weights.shape[2:])
    strides, dilations, reach = _window(node, kernel)
    if not 1 <= len(kernel) <= 3:
        raise node.refuse(f"has {len(kernel)} spatial dimensions; TFLite has 1 to 3")
    size = value.shape[2:]
    pads = _pads(node, size, kernel, strides, dilations)
    same = _is_same(size, reach, strides, pads)
    x = value.last if same else _padded(value.last, pads)
    groups = node.attribute("group", 1)
    result = _convolve(node, x, weights, groups, strides, dilations, "SAME" if same else "VALID")
    bias = node.constant(2)
    return Value(last=result if bias is None else result + bias)


def _convolve(node: Node, x: Any, weights: np.ndarray, groups: int, strides: list[int],
              dilations: list[int], padding: str) -> Any:  # fmt: skip
    """A convolution over 1 to 3 dimensions; weights are [out, in / groups, ...]."""
    if weights.ndim == 3:  # a line is an image of height 1
        lifted = tf.expand_dims(x, 1)
        found = _convolve(node, lifted, weights[:, :, None], groups, [strides[0], strides[0]],
                          [1, *dilations], padding)  # fmt: skip
        return tf.squeeze(found, 1)
    kernel = np.ascontiguousarray(np.transpose(weights, [*range(2, weights.ndim), 1, 0]))
    if groups == 1:
        convolution = tf.nn.conv3d if weights.ndim == 5 else tf.nn.conv2d
        return convolution(x, kernel, [1, *strides, 1], padding, dilations=[1, *dilations, 1])
    if weights.ndim == 5:
        raise node.refuse("convolves volumes in groups")
    channels = int(x.shape[-1])
    if groups == channels:
        multiplier = weights.shape[0] // channels
        deep = weights.reshape(channels, multiplier, *weights.shape[2:]).transpose(2, 3, 0, 1)
        return tf.nn.depthwise_conv2d(
            x, np.ascontiguousarray(deep), [1, *strides, 1], padding, dilations=dilations
        )
    parts = [
        tf.nn.conv2d(part, k, [1, *strides, 1], padding, dilations=[1, *dilations, 1])
        for part, k in zip(tf.split(x, groups, -1), np.split(kernel, groups, -1), strict=True)
    ]
    return tf.concat(parts, -1)


@operator("ConvTranspose")
def _conv_transpose(node: Node) -> Value:
    value, weights = node.input(0), np.asarray(node.constant(1))
    if weights.ndim not in {3, 4} or node.attribute("group", 1) != 1:
        raise node.refuse("is not a plain transposed convolution over one or two dimensions")
    if any(d != 1 for d in node.attribute("dilations", [1])):
        raise node.refuse("is a dilated transposed convolution")
    line = weights.ndim == 3
    kernel = list(weights.shape[2:])
    strides, _, _ = _window(node, kernel)
    size = value.shape[2:]
    extra = list(node.attribute("output_padding", [0] * len(kernel)))
    full = [(n - 1) * s + k for n, s, k in zip(size, strides, kernel, strict=True)]
    pads = _transposed_pads(node, size, strides, full, extra)
    x = value.last
    if line:
        x, weights = tf.expand_dims(x, 1), weights[:, :, None]
        full, pads, extra, strides = [1, *full], [(0, 0), *pads], [0, *extra], [1, *strides]
    shape = [value.shape[0], *full, weights.shape[1]]
    filters = np.ascontiguousarray(np.transpose(weights, [2, 3, 1, 0]))
    result = tf.nn.conv2d_transpose(x, filters, shape, [1, *strides, 1], "VALID")
    result = _padded(result, [(0, more) for more in extra])
    ends = [n + more - after for n, more, (_, after) in zip(full, extra, pads, strict=True)]
    starts = [before for before, _ in pads]
    result = result[:, starts[0] : ends[0], starts[1] : ends[1], :]
    bias = node.constant(2)
    result = tf.squeeze(result, 1) if line else result
    return Value(last=result if bias is None else result + bias)


def _transposed_pads(node: Node, size: list[int], strides: list[int], full: list[int],
                     extra: list[int]) -> list[tuple[int, int]]:  # fmt: skip
    """What is cut off the full result before and after each dimension."""
    count = len(size)
    wanted = node.attribute("output_shape")
    mode = node.attribute("auto_pad", "NOTSET")
    if wanted is None and mode == "NOTSET":
        flat = node.attribute("pads", [0] * 2 * count)
        return list(zip(flat[:count], flat[count:], strict=True))
    if wanted is None:
        wanted = (
            [n * s for n, s in zip(size, strides, strict=True)] if mode.startswith("SAME") else full
        )
    pads = []
    for have, more, want in zip(full, extra, wanted[-count:], strict=True):
        total = max(have + more - want, 0)
        small, large = total // 2, total - total // 2
        pads.append((small, large) if mode == "SAME_UPPER" else (large, small))
    return pads


@operator("MaxPool")
def _max_pool(node: Node) -> Value:
    value = node.input()
    kernel = list(node.attribute("kernel_shape"))
    strides, dilations, reach = _window(node, kernel)
    if node.outputs > 1 or any(d != 1 for d in dilations) or len(kernel) > 2:
        raise node.refuse("has indices, dilations or more than two dimensions")
    size = value.shape[2:]
    pads = _pads(node, size, kernel, strides, dilations)
    if _is_same(size, reach, strides, pads):
        return _pooled(value, kernel, strides, "SAME", "MAX")
    if value.nonnegative:
        padded = _padded(value.last, pads)
    elif all(2 * max(pad) <= k for pad, k in zip(pads, kernel, strict=True)):
        # Mirrored values are in the window already, so no maximum changes; the lowest float
        # would be exact too, and ruin the range that int8 shares out.
        padded = _padded(value.last, pads, "SYMMETRIC")
    else:
        raise node.refuse("pads by more than half of its window")
    return _pooled(Value(last=padded, nonnegative=value.nonnegative), kernel, strides, "VALID",
                   "MAX")  # fmt: skip


def _pooled(value: Value, kernel: list[int], strides: list[int], padding: str, kind: str) -> Value:
    pool = tf.nn.max_pool2d if kind == "MAX" else tf.nn.avg_pool2d
    if len(kernel) == 1:
        lifted = tf.expand_dims(value.last, 1)
        found = tf.squeeze(pool(lifted, [1, *kernel], [1, *strides], padding), 1)
    else:
        found = pool(value.last, kernel, strides, padding)
    return Value(last=found, nonnegative=value.nonnegative)


@operator("AveragePool")
def _average_pool(node: Node) -> Value:
    value = node.input()
    kernel = list(node.attribute("kernel_shape"))
    strides, dilations, reach = _window(node, kernel)
    if any(d != 1 for d in dilations) or len(kernel) > 2:
        raise node.refuse("has dilations or more than two dimensions")
    size = value.shape[2:]
    pads = _pads(node, size, kernel, strides, dilations)
    counted = bool(node.attribute("count_include_pad", 0))
    if _is_same(size, reach, strides, pads) and (not counted or not any(map(any, pads))):
        return _pooled(value, kernel, strides, "SAME", "AVG")
    own = Value(last=_padded(value.last, pads), nonnegative=value.nonnegative)
    found = _pooled(own, kernel, strides, "VALID", "AVG")
    declared = node.attribute("pads", [0] * 2 * len(kernel))
    inside = [
        (declared[i], declared[i + len(kernel)]) if counted else (0, 0) for i in range(len(kernel))
    ]
    share = _counted_share(size, kernel, strides, pads, inside)
    if np.all(share == 1):
        return found
    return mapped(found, lambda x: x * share)


def _counted_share(
    size: list[int],
    kernel: list[int],
    strides: list[int],
    pads: list[tuple[int, int]],
    inside: list[tuple[int, int]],
) -> np.ndarray:
    """For each window, its size divided by how many of its places count: [1, ..., 1]."""
    total = np.ones((1,), np.float32)
    for n, k, s, (before, after), (start, end) in zip(
        size, kernel, strides, pads, inside, strict=True
    ):
        marks = np.zeros(before + n + after)
        marks[before - min(start, before) : before + n + min(end, after)] = 1
        counts = [marks[i : i + k].sum() for i in range(0, len(marks) - k + 1, s)]
        total = np.multiply.outer(total, k / np.asarray(counts))
    return total[..., None].astype(np.float32)


@operator("GlobalAveragePool", "GlobalMaxPool")
def _global_pool(node: Node) -> Value:
    value = node.input()
    axes = list(range(1, value.rank - 1))
    reduce = tf.reduce_mean if node.operator == "GlobalAveragePool" else tf.reduce_max
    return Value(last=reduce(value.last, axes, keepdims=True), nonnegative=value.nonnegative)


@operator("BatchNormalization")
def _batch_normalization(node: Node) -> Value:
    scale, bias, mean, variance = (np.asarray(node.constant(i)) for i in range(1, 5))
    factor = (scale / np.sqrt(variance + node.attribute("epsilon", 1e-5))).astype(np.float32)
    offset = (bias - mean * factor).astype(np.float32)
    if node.input().rank < 3:
        return mapped(node.input(), lambda x: x * factor + offset)
    return Value(last=node.input().last * factor + offset)


@operator("InstanceNormalization", "GroupNormalization")
def _group_normalization(node: Node) -> Value:
    value = node.input()
    x = value.last
    batch, *sizes, channels = (int(n) for n in x.shape)
    groups = node.attribute("num_groups", channels)
    scale, bias = np.asarray(node.constant(1)), np.asarray(node.constant(2))
    if len(scale) != channels:  # opset 18 has one for each group
        scale, bias = (np.repeat(array, channels // groups) for array in (scale, bias))
    split = tf.reshape(x, [batch, int(np.prod(sizes)), groups, channels // groups])
    normal = _normalised(split, [1, 3], node.attribute("epsilon", 1e-5))
    return Value(last=tf.reshape(normal, [batch, *sizes, channels]) * scale + bias)


def _normalised(x: Any, axes: list[int], epsilon: float) -> Any:
    mean = tf.reduce_mean(x, axes, keepdims=True)
    centred = x - mean
    variance = tf.reduce_mean(centred * centred, axes, keepdims=True)
    return centred * tf.math.rsqrt(variance + np.float32(epsilon))


@operator("LayerNormalization")
def _layer_normalization(node: Node) -> Value:
    if node.outputs > 1:
        raise node.refuse("gives its mean and deviation too")
    x = node.input().first
    rank = len(x.shape)
    first = node.attribute("axis", -1) % rank
    result = _normalised(x, list(range(first, rank)), node.attribute("epsilon", 1e-5))
    result = result * node.input(1).first
    return Value(result + node.input(2).first if node.given(2) else result)


@operator("LRN")
def _local_response(node: Node) -> Value:
    size = node.attribute("size")
    if size % 2 == 0:
        raise node.refuse("has an even window")
    alpha = node.attribute("alpha", 1e-4) / size
    return Value(last=tf.nn.local_response_normalization(
        node.input().last, size // 2, node.attribute("bias", 1.0), alpha,
        node.attribute("beta", 0.75)))  # fmt: skip


@operator("Resize", "Upsample")
def _resize(node: Node) -> Value:
    value = node.input()
    shape, target = value.shape, _target(node, value.shape)
    if value.rank != 4 or target[:2] != shape[:2]:
        raise node.refuse(f"resizes {shape} to {target}; TFLite resizes the last two of four")
    mode = node.attribute("mode", "nearest")
    place = node.attribute("coordinate_transformation_mode", "half_pixel")
    if node.operator == "Upsample" or "asymmetric" in place:
        place = "asymmetric"
    half, aligned = place in {"half_pixel", "pytorch_half_pixel"}, place == "align_corners"
    if mode == "nearest" and all(b % a == 0 for a, b in zip(shape[2:], target[2:], strict=True)):
        # By whole factors every convention repeats each pixel.
        resized = tf.raw_ops.ResizeNearestNeighbor(images=value.last, size=target[2:])
    elif mode == "linear" and (half or aligned or place == "asymmetric"):
        resized = tf.raw_ops.ResizeBilinear(
            images=value.last, size=target[2:], align_corners=aligned, half_pixel_centers=half
        )
    else:
        raise node.refuse(f"resizes by mode {mode!r} with {place!r}, which TFLite lacks")
    return Value(last=resized, nonnegative=value.nonnegative)


def _target(node: Node, shape: list[int]) -> list[int]:
    if node.given(3):
        sizes = [int(n) for n in node.constant(3)]
    else:
        at = 1 if node.operator == "Upsample" or node.opset < 11 else 2
        scales = node.constant(at, node.attribute("scales"))
        sizes = [int(np.floor(n * s)) for n, s in zip(shape[-len(scales) :], scales, strict=True)]
    axes = node.attribute("axes")
    if axes is not None:
        full = list(shape)
        for axis, size in zip(axes, sizes, strict=True):
            full[axis % len(shape)] = size
        return full
    return shape[: len(shape) - len(sizes)] + sizes


@operator("DepthToSpace")
def _depth_to_space(node: Node) -> Value:
    block, value = node.attribute("blocksize"), node.input()
    if node.attribute("mode", "DCR") == "DCR":
        return Value(last=tf.nn.depth_to_space(value.last, block))
    channels = value.shape[1]
    deep = channels // block**2
    order = np.arange(channels).reshape(deep, block, block).transpose(1, 2, 0).reshape(-1)
    return Value(last=tf.nn.depth_to_space(tf.gather(value.last, order, axis=-1), block))


@operator("SpaceToDepth")
def _space_to_depth(node: Node) -> Value:
    return Value(last=tf.nn.space_to_depth(node.input().last, node.attribute("blocksize")))


@operator("Pad")
def _pad(node: Node) -> Value:
    value = node.input()
    flat = node.constant(1, node.attribute("pads"))
    axes = node.axes(3) if node.given(3) else list(range(value.rank))
    widths = [(0, 0)] * value.rank
    for index, axis in enumerate(axes or []):
        widths[axis] = (int(flat[index]), int(flat[index + len(flat) // 2]))
    mode = node.attribute("mode", "constant")
    fill = float(np.reshape(node.constant(2, node.attribute("value", 0.0)), ()))
    ordered = [widths[axis] for axis in to_last(value.rank)] if value.made_last else widths
    if mode == "constant":
        return mapped(
            value,
            lambda x: _cut(
                tf.pad(x, _above(ordered), constant_values=tf.cast(fill, x.dtype)), ordered
            ),
            nonnegative=value.nonnegative and fill >= 0,
        )
    if mode == "reflect" and min(map(min, widths)) >= 0:
        return mapped(value, lambda x: tf.pad(x, ordered, "REFLECT"),
                      nonnegative=value.nonnegative)  # fmt: skip
    raise node.refuse(f"pads by mode {mode!r}, which TFLite lacks")


def _above(widths: list[tuple[int, int]]) -> list[tuple[int, int]]:
    return [(max(before, 0), max(after, 0)) for before, after in widths]


def _cut(x: Any, widths: list[tuple[int, int]]) -> Any:
    """Negative pads take away."""
    if min(map(min, widths)) >= 0:
        return x
    starts = [max(-before, 0) for before, _ in widths]
    ends = [int(n) - max(-after, 0) for n, (_, after) in zip(x.shape, widths, strict=True)]
    return x[tuple(slice(a, b) for a, b in zip(starts, ends, strict=True))]
