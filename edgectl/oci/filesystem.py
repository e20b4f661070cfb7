"""Files that survive a power cut: written whole, synced, then renamed into place."""

from __future__ import annotations

import errno
import os
import stat
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from edgectl.errors import IntegrityError, StorageError, StorageFullError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from edgectl.errors import EdgectlError

TEMPORARY_PREFIX = ".edgectl-"
_CHUNK_BYTES = 1 << 16
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def storage_error(error: OSError, doing: str) -> EdgectlError:
    """The error of the family for what a file system refused."""
    reason = error.strerror or str(error)
    if error.errno in _FULL:
        return StorageFullError(f"no space left while {doing}: {reason}", hint="free some space")
    if error.errno == errno.EROFS:
        return StorageError(f"{doing}: {reason}", hint="remount the file system read-write")
    return StorageError(f"{doing}: {reason}", hint="check the path, its owner and the disk")


@contextmanager
def storage_errors(doing: str) -> Iterator[None]:
    """Turn OSErrors of the block into StorageFullError or StorageError."""
    try:
        yield
    except OSError as error:
        raise storage_error(error, doing) from error


def open_file(path: Path) -> BinaryIO:
    """Open an ordinary file to read, one that somebody else put there.

    Raises OSError, and IntegrityError if it is none: a pipe would keep its reader waiting for
    ever, and a device file feed it without end.
    """
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise IntegrityError(f"{path} is no ordinary file", hint="who could write there?")
    return os.fdopen(handle, "rb")


def read_at_most(file: BinaryIO, limit: int) -> bytes:
    """The rest of a file, or its first `limit` bytes: memory is taken for what is there, not for
    the limit, as `file.read(limit)` does."""
    chunks = []
    while limit > 0 and (chunk := file.read(min(limit, _CHUNK_BYTES))):
        chunks.append(chunk)
        limit -= len(chunk)
    return b"".join(chunks)


@contextmanager
def replacing(path: Path, directory: Path | None = None) -> Iterator[BinaryIO]:
    """Open a temporary file that becomes `path` when the block ends well, and nothing else.

    The temporary file is made in `directory` (default: the parent of `path`), which has to be on
    the same file system. File and directory are synced, so that after a power cut `path` is the
    old file or the new one. Raises OSError.
    """
    handle, name = tempfile.mkstemp(prefix=TEMPORARY_PREFIX, dir=directory or path.parent)
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            os.fchmod(handle, 0o644)
            yield file
            file.flush()
            os.fsync(handle)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_directory(path.parent)


def write_atomic(path: Path, data: bytes) -> None:
    """Replace a file's content, or leave it as it was; raises OSError."""
    with replacing(path) as file:
        file.write(data)


def is_plain_name(name: object) -> bool:
    """Whether a name that comes from elsewhere is one file's name, and leads nowhere else."""
    return (
        isinstance(name, str)
        and 0 < len(name.encode(errors="replace")) <= 255
        and not name.startswith(".")
        and not any(character in name for character in "/\\\0")
    )


def partial_path(path: Path) -> Path:
    """Where what has arrived of a file waits for the rest."""
    return path.with_name(f"{path.name}.partial")


def sync_directory(path: Path) -> None:
    """Make renames in a directory survive a power cut; raises OSError."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
