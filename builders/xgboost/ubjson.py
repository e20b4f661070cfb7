"""Universal Binary JSON (https://ubjson.org, draft 12), as far as XGBoost writes it."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np

MAX_DEPTH = 32

_NUMBERS = {
    "i": ">b", "U": ">B", "I": ">h", "l": ">i", "L": ">q", "d": ">f", "D": ">d",
}  # fmt: skip
_DTYPES = {
    "i": ">i1", "U": ">u1", "I": ">i2", "l": ">i4", "L": ">i8", "d": ">f4", "D": ">f8",
}  # fmt: skip
_CONSTANTS = {"Z": None, "T": True, "F": False}


def parse(data: bytes) -> Any:
    """The value in `data`: dicts, lists, numbers and text. Raises ValueError if it is malformed.

    What it makes is never much larger than `data`: an array of typed elements has to be there in
    full, and types without a size are not read as arrays of a count.
    """
    reader = _Reader(data)
    value = reader.value(reader.marker(), 0)
    if reader.place != len(data):
        raise ValueError(f"{len(data) - reader.place} bytes follow the value")
    return value


class _Reader:
    def __init__(self, data: bytes) -> None:
        self._data = data
        self.place = 0

    def marker(self) -> str:
        """The next type marker; padding (`N`) is skipped."""
        while (marker := self._take(1).decode("latin-1")) == "N":
            pass
        return marker

    def value(self, marker: str, depth: int) -> Any:
        if depth > MAX_DEPTH:
            raise ValueError(f"nested deeper than {MAX_DEPTH}")
        if marker in _NUMBERS:
            return self._number(marker)
        if marker in _CONSTANTS:
            return _CONSTANTS[marker]
        if marker == "C":
            return self._take(1).decode("ascii")
        if marker == "S":
            return self._text(self.marker())
        if marker == "[":
            return self._array(depth)
        if marker == "{":
            return self._object(depth)
        raise ValueError(f"unknown type {marker!r} at byte {self.place - 1}")

    def _array(self, depth: int) -> list[Any]:
        marker = self.marker()
        if marker == "$":
            element = self.marker()
            if element not in _DTYPES or self.marker() != "#":
                raise ValueError(f"unknown array of {element!r} at byte {self.place}")
            dtype = np.dtype(_DTYPES[element])
            data = self._take(self._length(self.marker()) * dtype.itemsize)
            values: list[Any] = np.frombuffer(data, dtype).tolist()
            return values
        if marker == "#":
            count = self._length(self.marker())
            return [self.value(self.marker(), depth + 1) for _ in range(count)]
        values = []
        while marker != "]":
            values.append(self.value(marker, depth + 1))
            marker = self.marker()
        return values

    def _object(self, depth: int) -> dict[str, Any]:
        found: dict[str, Any] = {}
        while (marker := self.marker()) != "}":
            key = self._text(marker)
            if key in found:
                raise ValueError(f"the key {key!r} is there twice")
            found[key] = self.value(self.marker(), depth + 1)
        return found

    def _text(self, marker: str) -> str:
        return self._take(self._length(marker)).decode("utf-8")

    def _length(self, marker: str) -> int:
        if marker not in "iUIlL":
            raise ValueError(f"{marker!r} at byte {self.place - 1} is no length")
        length = int(self._number(marker))
        if length < 0:
            raise ValueError(f"a length of {length} at byte {self.place}")
        return length

    def _number(self, marker: str) -> int | float:
        layout = _NUMBERS[marker]
        number: int | float = struct.unpack(layout, self._take(struct.calcsize(layout)))[0]
        return number

    def _take(self, count: int) -> bytes:
        if count > len(self._data) - self.place:
            raise ValueError(f"the file ends at byte {len(self._data)}, in the middle of a value")
        self.place += count
        return self._data[self.place - count : self.place]
