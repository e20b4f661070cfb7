"""What the arrays of an .npz are, from their headers alone (numpy.lib.format, versions 1 and 2).

Manifests are checked where numpy need not be installed, of any number of models at once: of each
array a few hundred bytes are unpacked, and nothing is unpickled.
"""

from __future__ import annotations

import ast
import math
import re
import zipfile
import zlib
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

_MAX_ARRAYS = 1024
_MAX_HEADER_BYTES = 10_000
"""numpy's own limit on what it takes for a header."""
_SUFFIX = ".npy"
_MAGIC = b"\x93NUMPY"
_LENGTH_BYTES = {b"\x01\x00": 2, b"\x02\x00": 4}
_DESCR = re.compile(r"[<>|=]?([biufcSUOmMV])([0-9]*)(?:\[[^\]]*\])?")
_DATATYPES = {
    "b1": "BOOL", "u1": "UINT8", "u2": "UINT16", "u4": "UINT32", "u8": "UINT64",
    "i1": "INT8", "i2": "INT16", "i4": "INT32", "i8": "INT64",
    "f2": "FP16", "f4": "FP32", "f8": "FP64",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class ArrayHeader:
    """One array, unread."""

    datatype: str
    """As the Open Inference Protocol names it; numpy's own name for what it has no name for."""
    shape: tuple[int, ...]


def read_headers(path: Path) -> dict[str, ArrayHeader]:
    """Every array of an .npz by name.

    Raises OSError if the file cannot be read, ValueError that says why it is no .npz that edgectl
    reads: another file, damaged, or with Python objects in it.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            if len(members) > _MAX_ARRAYS:
                raise ValueError(f"it has {len(members)} arrays, more than {_MAX_ARRAYS}")
            found = {}
            for member in members:
                name = member.filename.removesuffix(_SUFFIX)
                if name == member.filename:
                    raise ValueError(f"{name!r} in it is no array")
                with archive.open(member) as stream:
                    found[name] = _header(stream, member.file_size, name)
            return found
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:
        raise ValueError(str(error)) from error


def _header(stream: IO[bytes], size: int, name: str) -> ArrayHeader:
    magic, version = stream.read(len(_MAGIC)), stream.read(2)
    form = _LENGTH_BYTES.get(version)
    if magic != _MAGIC or form is None:
        raise ValueError(f"{name!r} in it is no array of numpy's format 1.0 or 2.0")
    length = int.from_bytes(stream.read(form), "little")
    if length > _MAX_HEADER_BYTES:
        raise ValueError(f"the header of array {name!r} has {length} bytes")
    try:
        header = ast.literal_eval(stream.read(length).decode("latin-1").strip())
        descr, shape = header["descr"], header["shape"]
    except (ValueError, SyntaxError, TypeError, KeyError, RecursionError, MemoryError) as error:
        raise ValueError(f"array {name!r} has a broken header") from error
    if not isinstance(shape, tuple) or not all(type(each) is int and each >= 0 for each in shape):
        raise ValueError(f"array {name!r} has the shape {shape!r}")
    datatype, width = _element(descr, name)
    if math.prod(shape) * width != size - stream.tell():
        raise ValueError(f"array {name!r} of shape {list(shape)} does not fill its {size} bytes")
    return ArrayHeader(datatype, shape)


def _element(descr: object, name: str) -> tuple[str, int]:
    """Datatype and bytes of an element."""
    match = _DESCR.fullmatch(descr) if isinstance(descr, str) else None
    if match is None or match[1] in "OV":
        raise ValueError(f"array {name!r} holds Python objects or records, not numbers or text")
    kind, width = match[1], int(match[2] or 0)
    if kind in "SU":
        return "BYTES", width * (4 if kind == "U" else 1)
    return _DATATYPES.get(f"{kind}{width}", f"{kind}{width}"), width
