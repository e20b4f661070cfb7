"""Writes that survive a power cut: synced before they are named, named by an atomic rename."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from typing import TYPE_CHECKING

from edgectl.errors import EdgectlError, StorageError, StorageFullError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def storage_error(error: OSError, what: str) -> EdgectlError:
    """The error of the family for a file system's refusal; `what` reads "cannot <what>"."""
    if error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}:
        return StorageFullError(
            f"cannot {what}: no space is left ({error.strerror})",
            hint="free space on the device's state directory; the agent tries again by itself",
        )
    return StorageError(
        f"cannot {what}: {error.strerror or error}",
        hint="check that the state directory is writable and that its disk is healthy",
    )


@contextlib.contextmanager
def refusals(what: str) -> Iterator[None]:
    """Turn an OSError inside into StorageFullError or StorageError."""
    try:
        yield
    except OSError as error:
        raise storage_error(error, what) from error


def sync_directory(path: Path) -> None:
    """Make the names in a directory durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_file(path: Path) -> None:
    """Make a file's bytes durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_file(path: Path, data: bytes) -> None:
    """Replace a file at once and durably, or leave it as it was."""
    temporary = path.with_name(f".{path.name}.new")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    sync_directory(path.parent)


def point(link: Path, target: str) -> None:
    """Make a symbolic link point elsewhere at once and durably."""
    temporary = link.with_name(f".{link.name}.new")
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(target)
    temporary.replace(link)
    sync_directory(link.parent)


def link_or_copy(source: Path, destination: Path) -> None:
    """Hard-link a file, or copy it durably where the file system has no hard links."""
    try:
        destination.hardlink_to(source)
    except OSError as error:
        if error.errno not in {errno.EPERM, errno.EXDEV, errno.EMLINK, errno.ENOTSUP}:
            raise
        shutil.copyfile(source, destination)
        sync_file(destination)
