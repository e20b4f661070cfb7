"""Encoded data to the tensor that a model takes."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from edgectl.engine.errors import EngineError, InputError
from edgectl.engine.transforms.geometry import Geometry
from edgectl.engine.transforms.image import Crop, Resize
from edgectl.engine.transforms.registry import KINDS, name_of, read_pre
from edgectl.engine.transforms.text import Tokenize
from edgectl.engine.transforms.values import Dtype

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from edgectl.engine.signature import TensorSpec
    from edgectl.engine.transforms.registry import Step


@dataclass(frozen=True, slots=True, eq=False)
class Prepared:
    """One encoded datum as a tensor."""

    array: NDArray[Any]
    """[1, ...], of the input's datatype."""
    geometry: Geometry | None = None
    """Of a picture: where it lies in the original."""


def encoded_kind(spec: TensorSpec) -> str | None:
    """What encoded data the input takes, by its first transform: `image`, `audio`, `text` or
    `row`; None if it takes tensors alone."""
    return KINDS.get(name_of(spec.transforms[0])) if spec.transforms else None


def accepts_encoded(spec: TensorSpec) -> bool:
    """Whether the input can be encoded data."""
    return encoded_kind(spec) is not None


def sharing(specs: Sequence[TensorSpec], spec: TensorSpec) -> list[TensorSpec]:
    """The inputs that take the same kind of encoded data as this one, itself among them: one
    datum is meant for them all, such as a text for the ids and the mask of its tokens."""
    kind = encoded_kind(spec)
    return [other for other in specs if kind is not None and encoded_kind(other) == kind]


def asset_names(spec: TensorSpec) -> tuple[str, ...]:
    """The files beside the model that the input's transforms need."""
    read = [read_pre(declared) for declared in spec.transforms]
    return tuple(step.vocabulary for step in read if isinstance(step, Tokenize))


def load_assets(specs: Sequence[TensorSpec], assets: Path | None) -> None:
    """Load what the inputs' transforms need, so that what is missing shows before a request.

    Raises EngineError that names the input, and what is missing or damaged.
    """
    for spec in specs:
        for step in map(read_pre, spec.transforms):
            if isinstance(step, Tokenize):
                try:
                    step.open(assets)
                except EngineError as error:
                    error.args = (f"input {spec.name!r}: {error}",)
                    raise


def preprocess(spec: TensorSpec, encoded: bytes, assets: Path | None = None) -> Prepared:
    """One encoded datum to the input's tensor.

    `assets` is the directory of the files that the transforms name, which is the model's. Raises
    InputError if the bytes are not such data, or the result does not fit the input; EngineError
    for assets as `load_assets` does.
    """
    from edgectl.engine.tensors import check as check_tensor

    if not accepts_encoded(spec):
        raise InputError(f"input {spec.name!r} takes tensors, not encoded data")
    first, *rest = map(read_pre, spec.transforms)
    try:
        value, geometry = _decode(first, encoded, assets)
        for step in rest:
            value = cast("Step", step).apply(value)
            if geometry is not None and isinstance(step, Resize | Crop):
                geometry = step.move(geometry)
    except InputError as error:
        raise InputError(f"input {spec.name!r}: {error}") from error
    one = dataclasses.replace(spec, shape=(1, *spec.shape[1:]))
    return Prepared(check_tensor(one, Dtype(spec.datatype).apply(value)[None]), geometry)


def _decode(
    first: Any, encoded: bytes, assets: Path | None
) -> tuple[NDArray[Any], Geometry | None]:
    if isinstance(first, Tokenize):
        return first.apply(encoded, assets), None
    value = first.apply(encoded)
    if value.ndim != 3:
        return value, None
    return value, Geometry.of(value.shape[1], value.shape[0])
