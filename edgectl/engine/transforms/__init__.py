"""Declared pre- and post-processing: the same code in evaluation, warm-up and serving.

A declaration is a mapping with one key, the transform's name, and its parameters. `check` reads
declarations without numpy or Pillow.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, Literal

from edgectl.engine.errors import InputError
from edgectl.engine.transforms.image import Crop, Resize, pixel_count
from edgectl.engine.transforms.registry import canonical, read_post, read_pre
from edgectl.engine.transforms.scores import ArgMax, Classes, TopK
from edgectl.engine.transforms.values import Dtype, Layout, Normalize

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edgectl.engine.signature import TensorSpec

__all__ = [
    "Classes", "accepts_encoded", "canonical", "check", "pixel_count", "postprocess",
    "preprocess", "scores",
]  # fmt: skip


def check(spec: TensorSpec, role: Literal["input", "output"]) -> None:
    """Check an input's or output's transforms: names, parameters, order, and the resulting shape.

    Raises ValueError that names the transform and what would be right.
    """
    if role == "input":
        _check_input(spec)
    else:
        _check_output(spec)


def accepts_encoded(spec: TensorSpec) -> bool:
    """Whether the input can be an encoded picture: whether its transforms begin with `decode`."""
    return bool(spec.transforms) and _name(spec.transforms[0]) == "decode"


def preprocess(spec: TensorSpec, encoded: bytes) -> NDArray[Any]:
    """One encoded picture to the input array, batch dimension included: [1, ...], `spec.datatype`.

    Raises InputError if the bytes are not such a picture, or the result does not fit the input.
    """
    from edgectl.engine.tensors import check as check_tensor

    if not accepts_encoded(spec):
        raise InputError(f"input {spec.name!r} takes tensors, not encoded data")
    value: Any = encoded
    try:
        for declared in spec.transforms:
            value = read_pre(declared).apply(value)
    except InputError as error:
        raise InputError(f"input {spec.name!r}: {error}") from error
    one = dataclasses.replace(spec, shape=(1, *spec.shape[1:]))
    return check_tensor(one, Dtype(spec.datatype).apply(value)[None])


def scores(spec: TensorSpec, array: NDArray[Any]) -> NDArray[Any]:
    """The output as numbers: its transforms up to where a class is chosen, same shape."""
    for transform in map(read_post, spec.transforms):
        if isinstance(transform, TopK | ArgMax):
            break
        array = transform.apply(array)
    return array


def postprocess(spec: TensorSpec, array: NDArray[Any]) -> NDArray[Any] | Classes:
    """An output array [batch, ...] through the declared transforms.

    The result is an array of the same shape, or `Classes` where `topk` or `argmax` is declared.
    """
    numbers = scores(spec, array)
    for transform in map(read_post, spec.transforms):
        if isinstance(transform, TopK | ArgMax):
            return transform.apply(numbers, spec.labels)
    return numbers


def _check_input(spec: TensorSpec) -> None:
    if not spec.transforms:
        return
    transforms = [(_name(declared), read_pre(declared)) for declared in spec.transforms]
    if [name for name, _ in transforms].count("decode") != 1 or not accepts_encoded(spec):
        raise ValueError(f"input {spec.name!r}: 'decode' must come first, and once")
    shape: tuple[int, ...] = ()
    laid_out = False
    for name, transform in transforms:
        if laid_out and isinstance(transform, Resize | Crop | Normalize):
            raise ValueError(f"input {spec.name!r}: transform {name!r} must come before 'layout'")
        laid_out = laid_out or isinstance(transform, Layout)
        try:
            shape = transform.shape(shape)
        except ValueError as error:
            raise ValueError(f"input {spec.name!r}: transform {name!r} {error}") from None
    if not _could_be(shape, spec.shape[1:]):
        raise ValueError(
            f"input {spec.name!r}: its transforms make {_batched(shape)}, "
            f"but its shape is {list(spec.shape)}"
        )


def _check_output(spec: TensorSpec) -> None:
    classes = spec.shape[-1] if spec.shape else 1
    if spec.labels and classes > 1 and len(spec.labels) != classes:
        raise ValueError(f"output {spec.name!r} has {len(spec.labels)} labels for {classes} scores")
    shape = spec.shape
    for position, declared in enumerate(spec.transforms):
        transform = read_post(declared)
        if isinstance(transform, TopK | ArgMax) and position != len(spec.transforms) - 1:
            raise ValueError(f"output {spec.name!r}: {_name(declared)!r} must come last")
        try:
            shape = transform.shape(shape)
        except ValueError as error:
            raise ValueError(
                f"output {spec.name!r}: transform {_name(declared)!r} {error}"
            ) from None


def _name(declared: Any) -> str:
    return str(declared if isinstance(declared, str) else next(iter(declared)))


def _could_be(made: tuple[int, ...], declared: tuple[int, ...]) -> bool:
    return len(made) == len(declared) and all(
        -1 in pair or pair[0] == pair[1] for pair in zip(made, declared, strict=True)
    )


def _batched(shape: tuple[int, ...]) -> list[int]:
    return [1, *shape]
