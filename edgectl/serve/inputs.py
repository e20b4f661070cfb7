"""The inputs of a request: tensors as they are sent, and encoded data through pre-processing."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from edgectl.engine import transforms
from edgectl.engine.errors import InputError
from edgectl.engine.tensors import numpy_dtype, shape_matches

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from edgectl.engine.signature import TensorSpec
    from edgectl.engine.transforms import Geometry, Prepared
    from edgectl.serve.codec import Array
    from edgectl.serve.protocol import InputTensor

_PLURAL = {
    "image": "encoded images", "audio": "encoded recordings", "text": "texts", "row": "rows of text"
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Limits:
    """How large a request may become inside the server."""

    batch: int = 256
    """Largest size of a dimension that the model leaves open at the front: what a model needs
    while it runs grows with it, far beyond the size of the request."""
    tensor_bytes: int = 32 << 20
    """Largest tensor made from encoded data: no more than could have been sent as a tensor."""
    pixels: int = 1 << 25
    """Most pixels that the images of one batch have together, which is what `decode` allows a
    single one: a few megabytes can hold hundreds of such, and a minute of everybody's time."""


class InputReader:
    """Makes the tensors that one model takes from those of a request."""

    def __init__(self, specs: Sequence[TensorSpec], limits: Limits, assets: Path | None) -> None:
        self._specs = {spec.name: spec for spec in specs}
        self._limits = limits
        self._assets = assets

    def read(
        self, tensors: Sequence[InputTensor]
    ) -> tuple[dict[str, Array], tuple[Geometry | None, ...]]:
        """The arrays by name, and the geometries of the batch's pictures where they were encoded.

        Encoded data also goes to those inputs that share it and were not sent. Raises InputError.
        """
        arrays: dict[str, Array] = {}
        geometries: tuple[Geometry | None, ...] = ()
        sent = {tensor.name for tensor in tensors}
        for tensor in tensors:
            spec = self._specs.get(tensor.name)
            if spec is None:
                raise InputError(
                    f"unknown input {tensor.name!r}; the model takes {_listed(self._specs)}"
                )
            if tensor.datatype != "BYTES" or not transforms.accepts_encoded(spec):
                arrays[spec.name] = self._tensor(spec, tensor)
                continue
            for sharer in transforms.sharing(list(self._specs.values()), spec):
                if sharer is spec or sharer.name not in sent:
                    prepared = self._encoded(sharer, tensor)
                    arrays[sharer.name] = _joined(sharer, [each.array for each in prepared])
                    if prepared[0].geometry is not None:
                        geometries = tuple(each.geometry for each in prepared)
        return arrays, geometries

    def _tensor(self, spec: TensorSpec, tensor: InputTensor) -> Array:
        if tensor.datatype != spec.datatype:
            kind = transforms.encoded_kind(spec)
            encoded = f" (or {_PLURAL[kind]} as BYTES)" if kind else ""
            if tensor.datatype == "BYTES" and not kind:
                encoded = ": its manifest declares no preprocess for encoded data"
            raise InputError(
                f"input {spec.name!r} is {tensor.datatype},"
                f" but the model takes {spec.datatype}{encoded}"
            )
        if not shape_matches(tensor.shape, spec.shape):
            raise InputError(
                f"input {spec.name!r} has shape {list(tensor.shape)}, but the model takes"
                f" {list(spec.shape)}{' (-1 is any size)' if -1 in spec.shape else ''}"
            )
        if 0 in tensor.shape:
            raise InputError(f"input {spec.name!r} of shape {list(tensor.shape)} is empty")
        if spec.shape[:1] == (-1,):
            self._check_batch(spec, tensor.shape[0])
        array = tensor.decode()
        return _text(array, spec.name) if spec.datatype == "BYTES" else array

    def _encoded(self, spec: TensorSpec, tensor: InputTensor) -> list[Prepared]:
        """Encoded data, each one element whatever the shape."""
        kind = transforms.encoded_kind(spec) or ""
        count = math.prod(tensor.shape)
        if count < 1:
            raise InputError(f"input {spec.name!r} of shape {list(tensor.shape)} is empty")
        self._check_batch(spec, count)
        if spec.shape[0] not in (-1, count):
            raise InputError(
                f"input {spec.name!r} takes {spec.shape[0]} {_PLURAL[kind]}, not {count}"
            )
        known = math.prod(size for size in spec.shape[1:] if size > 0)
        if count * known * numpy_dtype(spec.datatype).itemsize > self._limits.tensor_bytes:
            raise InputError(
                f"input {spec.name!r}: {count} {_PLURAL[kind]} make a tensor over the limit of"
                f" {self._limits.tensor_bytes} bytes; send fewer in one request"
            )
        encoded = list(tensor.decode().ravel())
        pictures = encoded if kind == "image" and count > 1 else []
        if sum(map(transforms.pixel_count, pictures)) > self._limits.pixels:
            raise InputError(
                f"input {spec.name!r}: the {count} images have more than {self._limits.pixels}"
                " pixels together; send fewer in one request"
            )
        return [transforms.preprocess(spec, each, self._assets) for each in encoded]

    def _check_batch(self, spec: TensorSpec, size: int) -> None:
        if size > self._limits.batch:
            raise InputError(
                f"input {spec.name!r}: a batch of {size} is over the limit of {self._limits.batch}"
            )


def _joined(spec: TensorSpec, arrays: list[Array]) -> Array:
    if len({array.shape for array in arrays}) > 1:
        raise InputError(f"input {spec.name!r}: data of different sizes cannot share a batch")
    return arrays[0] if len(arrays) == 1 else np.concatenate(arrays)


def _text(array: Array, name: str) -> Array:
    """A BYTES tensor as engines take it: str elements."""
    texts: Array = np.empty(array.shape, dtype=object)
    try:
        for place, element in np.ndenumerate(array):
            texts[place] = element.decode()
    except UnicodeDecodeError as error:
        raise InputError(f"input {name!r} is not UTF-8 text") from error
    return texts


def _listed(names: Mapping[str, Any]) -> str:
    return ", ".join(repr(name) for name in names)
