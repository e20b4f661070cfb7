"""Tensors as the Open Inference Protocol puts them on the wire, from and to numpy arrays.

Two forms: JSON numbers, booleans and strings, flat in row-major order or nested by the shape; and
raw little-endian bytes (the binary tensor data extension), where an element of a BYTES tensor is
its length as four bytes followed by its content. BYTES tensors are numpy object arrays of bytes.

Everything that a client can get wrong raises InputError, before anything larger than what the
client itself sent has been allocated.
"""

from __future__ import annotations

import math
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np

from edgectl.engine.errors import InputError
from edgectl.engine.signature import DATATYPES
from edgectl.engine.tensors import numpy_dtype

if TYPE_CHECKING:
    from collections.abc import Sequence

    Array = np.ndarray[Any, np.dtype[Any]]

_MAX_RANK = 32
_LENGTH_PREFIX = 4


def parse_shape(value: object, tensor: str) -> tuple[int, ...]:
    """Parse a JSON shape: a list of at most 32 integers that are not negative."""
    if not isinstance(value, list) or len(value) > _MAX_RANK:
        raise InputError(f"tensor {tensor!r}: 'shape' must be a list of at most 32 integers")
    for size in value:
        if type(size) is not int or not 0 <= size < 1 << 63:
            raise InputError(f"tensor {tensor!r}: {_brief(size)} in 'shape' is not a size")
    return tuple(value)


def parse_datatype(value: object, tensor: str) -> str:
    """Parse a datatype's name."""
    if not isinstance(value, str) or value not in DATATYPES:
        raise InputError(
            f"tensor {tensor!r}: datatype {_brief(value)} is not one of {', '.join(DATATYPES)}"
        )
    return value


def from_json(data: object, datatype: str, shape: Sequence[int], tensor: str) -> Array:
    """Read a tensor's JSON `data`, which must say every element exactly in the datatype."""
    flat = _flatten(data, shape, tensor)
    _check_count(len(flat), shape, tensor)
    _check_types(flat, datatype, tensor)
    if datatype == "BYTES":
        return _objects(_encode(flat, tensor), shape)
    try:
        with np.errstate(over="ignore"):
            return np.array(flat, dtype=numpy_dtype(datatype)).reshape(shape)
    except OverflowError as error:
        raise InputError(f"tensor {tensor!r}: a value is out of range for {datatype}") from error


def from_binary(buffer: memoryview, datatype: str, shape: Sequence[int], tensor: str) -> Array:
    """Read a tensor's raw bytes, without a copy where they are aligned for the datatype."""
    if datatype == "BYTES":
        return _objects(_split(buffer, math.prod(shape), tensor), shape)
    dtype = numpy_dtype(datatype).newbyteorder("<")
    wanted = math.prod(shape) * dtype.itemsize
    if len(buffer) != wanted:
        raise InputError(
            f"tensor {tensor!r}: {datatype} of shape {list(shape)} is {wanted} bytes,"
            f" but {len(buffer)} bytes were sent"
        )
    if datatype == "BOOL":
        raw = np.frombuffer(buffer, dtype=np.uint8)
        if raw.size and raw.max() > 1:
            raise InputError(f"tensor {tensor!r}: a BOOL must be the byte 0 or 1")
        return raw.view(np.bool_).reshape(shape)
    array = np.frombuffer(buffer, dtype=dtype).reshape(shape)
    return array if array.flags.aligned else array.copy()


def to_json(array: Array, tensor: str) -> list[Any]:
    """Flat JSON `data` of a tensor; NaN and infinities, which JSON cannot say, become null."""
    if array.dtype == object:
        try:
            return [_as_bytes(element).decode() for element in array.ravel()]
        except UnicodeDecodeError as error:
            raise InputError(
                f"output {tensor!r} is not text: ask for it with binary_data"
            ) from error
    flat = array.ravel()
    if flat.dtype.kind == "f" and not np.isfinite(flat).all():
        return [value if math.isfinite(value) else None for value in flat.tolist()]
    values: list[Any] = flat.tolist()
    return values


def to_binary(array: Array) -> bytes:
    """Raw little-endian bytes of a tensor."""
    if array.dtype == object:
        return b"".join(encode_element(_as_bytes(element)) for element in array.ravel())
    return array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()


def encode_element(element: bytes) -> bytes:
    """One element of a BYTES tensor in the binary form: its length, then itself."""
    return len(element).to_bytes(_LENGTH_PREFIX, "little") + element


def _flatten(data: object, shape: Sequence[int], tensor: str) -> list[Any]:
    if not isinstance(data, list):
        raise InputError(f"tensor {tensor!r}: 'data' must be a list")
    if not data or not isinstance(data[0], list):
        return data
    level: list[Any] = [data]
    for size in shape:
        if any(type(row) is not list or len(row) != size for row in level):
            raise InputError(
                f"tensor {tensor!r}: nested 'data' does not have the shape {list(shape)}"
            )
        level = list(chain.from_iterable(level))
    return level


_JSON_TYPES: dict[str, tuple[frozenset[type], str]] = {
    "b": (frozenset({bool}), "booleans"),
    "i": (frozenset({int}), "integers"),
    "u": (frozenset({int}), "integers that are not negative"),
    "f": (frozenset({int, float}), "numbers"),
    "O": (frozenset({str}), "strings"),
}


def _check_types(flat: list[Any], datatype: str, tensor: str) -> None:
    allowed, words = _JSON_TYPES[numpy_dtype(datatype).kind]
    if not allowed.issuperset(map(type, flat)):
        raise InputError(f"tensor {tensor!r}: the 'data' of {datatype} must be {words}")


def _check_count(count: int, shape: Sequence[int], tensor: str) -> None:
    wanted = math.prod(shape)
    if count != wanted:
        raise InputError(
            f"tensor {tensor!r}: shape {list(shape)} has {wanted} elements, but {count} were sent"
        )


def _encode(texts: list[str], tensor: str) -> list[bytes]:
    try:
        return [text.encode() for text in texts]
    except UnicodeEncodeError as error:
        raise InputError(f"tensor {tensor!r}: a string holds half a surrogate pair") from error


def _split(buffer: memoryview, count: int, tensor: str) -> list[bytes]:
    elements: list[bytes] = []
    position, end = 0, len(buffer)
    while position < end and len(elements) <= count:
        start = position + _LENGTH_PREFIX
        position = start + int.from_bytes(buffer[position:start], "little")
        if start > end or position > end:
            raise InputError(f"tensor {tensor!r}: a BYTES element is longer than the data sent")
        elements.append(bytes(buffer[start:position]))
    if len(elements) != count:
        sent = f"more than {count}" if len(elements) > count else str(len(elements))
        raise InputError(f"tensor {tensor!r}: {count} elements declared, but {sent} were sent")
    return elements


def _objects(elements: list[bytes], shape: Sequence[int]) -> Array:
    array = np.empty(len(elements), dtype=object)
    array[:] = elements
    return array.reshape(shape)


def _as_bytes(element: str | bytes) -> bytes:
    return element.encode() if isinstance(element, str) else bytes(element)


def _brief(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:40]}…"
