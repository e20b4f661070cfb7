"""Bounded reading of numpy's .npy and .npz files (numpy.lib.format), never with pickle.

Sizes are checked where they are declared, before anything is decompressed: an archive that would
unpack to more than the limit, or whose arrays claim more than they hold, is refused unread.
"""

from __future__ import annotations

import math
import zipfile
import zlib
from typing import IO, TYPE_CHECKING, Any

import numpy as np
from numpy.lib import format as npy

from edgectl.engine.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

MAX_BYTES = 1 << 28
"""Default limit on the unpacked size of a file."""

_MAX_ARRAYS = 1024
_CHUNK = 1 << 20
_SUFFIX = ".npy"
_COMPRESSIONS = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}


def read_npz(
    path: Path, *, rows: int | None = None, max_bytes: int = MAX_BYTES
) -> dict[str, NDArray[Any]]:
    """All arrays of an .npz by name; with `rows`, only the first rows of each are read.

    Raises InputError that names the file for one that is missing, no .npz, damaged, larger than
    `max_bytes` unpacked, or holds Python objects.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            _check_archive(members, max_bytes)
            arrays = {}
            for member in members:
                with archive.open(member) as stream:
                    array = _read_array(stream, member.file_size, rows)
                arrays[member.filename.removesuffix(_SUFFIX)] = array
            return arrays
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from error
    except (zipfile.BadZipFile, zlib.error, EOFError, ValueError, RuntimeError) as error:
        raise InputError(f"{path} is not a usable .npz file: {error}") from error


def read_npy(path: Path, *, max_bytes: int = MAX_BYTES) -> NDArray[Any]:
    """The array of an .npy file; raises InputError as `read_npz` does."""
    try:
        with path.open("rb") as stream:
            size = path.stat().st_size
            if size > max_bytes:
                raise ValueError(f"{size} bytes, more than {max_bytes}")
            return _read_array(stream, size, None)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, EOFError) as error:
        raise InputError(f"{path} is not a usable .npy file: {error}") from error


def _check_archive(members: list[zipfile.ZipInfo], max_bytes: int) -> None:
    if len(members) > _MAX_ARRAYS:
        raise ValueError(f"{len(members)} arrays, more than {_MAX_ARRAYS}")
    size = sum(member.file_size for member in members)
    if size > max_bytes:
        raise ValueError(f"{size} bytes unpacked, more than {max_bytes}")
    for member in members:
        if not member.filename.endswith(_SUFFIX):
            raise ValueError(f"{member.filename!r} is not an array")
        if member.compress_type not in _COMPRESSIONS:
            raise ValueError(f"{member.filename!r} is compressed in a way that numpy never uses")


def _read_array(stream: IO[bytes], size: int, rows: int | None) -> NDArray[Any]:
    version = npy.read_magic(stream)
    if version == (1, 0):
        shape, fortran_order, dtype = npy.read_array_header_1_0(stream)
    elif version == (2, 0):
        shape, fortran_order, dtype = npy.read_array_header_2_0(stream)
    else:
        raise ValueError(f"format version {version} is not 1.0 or 2.0")
    if dtype.hasobject or dtype.names:
        raise ValueError(f"an array of {dtype} is not plain numbers or text")
    if math.prod(shape) * dtype.itemsize != size - stream.tell():
        raise ValueError(f"an array of shape {list(shape)} {dtype} does not fill its {size} bytes")
    if rows is not None and shape and not fortran_order:
        shape = (min(rows, shape[0]), *shape[1:])
    data = bytearray(math.prod(shape) * dtype.itemsize)
    _fill(stream, memoryview(data))
    array = np.frombuffer(data, dtype).reshape(shape, order="F" if fortran_order else "C")
    return array[:rows] if shape else array


def _fill(stream: IO[bytes], view: memoryview) -> None:
    place = 0
    while place < len(view):
        chunk = stream.read(min(_CHUNK, len(view) - place))
        if not chunk:
            raise EOFError("the data ends early")
        view[place : place + len(chunk)] = chunk
        place += len(chunk)
