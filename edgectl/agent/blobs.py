"""Downloaded content by digest: `<state>/blobs/sha256/<hex>`, immutable once it has that name."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from edgectl.digest import Digest
from edgectl.errors import IntegrityError, StorageFullError
from edgectl.oci.filesystem import partial_path, storage_errors, sync_directory, write_atomic
from edgectl.quantity import format_bytes

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from edgectl.oci.descriptor import Descriptor


class BlobStore:
    """The blobs below one state directory."""

    def __init__(self, state: Path) -> None:
        self.directory = state / "blobs" / "sha256"

    def path(self, digest: Digest) -> Path:
        """Where a blob is, whether it is there or not."""
        return self.directory / digest.hex

    def has(self, descriptor: Descriptor) -> bool:
        """Whether a blob is there in full (its bytes are checked by `check`)."""
        path = self.path(descriptor.digest)
        return path.is_file() and path.stat().st_size == descriptor.size

    def prepare(self) -> None:
        """Make the directory."""
        with storage_errors(f"making {self.directory}"):
            self.directory.mkdir(parents=True, exist_ok=True)

    def put(self, digest: Digest, data: bytes) -> None:
        """Store bytes that were verified already."""
        with storage_errors(f"writing {self.path(digest)}"):
            write_atomic(self.path(digest), data)

    def read(self, digest: Digest) -> bytes:
        """A small blob, verified; raises IntegrityError and StorageError."""
        with storage_errors(f"reading {self.path(digest)}"):
            data = self.path(digest).read_bytes()
        if Digest.of(data) != digest:
            raise _damaged(digest, self.path(digest))
        return data

    def check(self, descriptor: Descriptor) -> None:
        """Hash a blob as it is on disk; one that is damaged is removed, to be fetched again.

        Raises IntegrityError naming the blob, and StorageError if it cannot be read.
        """
        path = self.path(descriptor.digest)
        with storage_errors(f"reading {path}"):
            if Digest.of_file(path) != descriptor.digest:
                path.unlink(missing_ok=True)
                raise _damaged(descriptor.digest, path)

    def require_space(self, missing: Iterable[Descriptor], reserve: int, free: int) -> None:
        """Refuse an update that does not fit, before its first byte; raises StorageFullError."""
        needed = sum(self._left(descriptor) for descriptor in missing)
        if needed and needed + reserve > free:
            raise StorageFullError(
                f"the update needs {format_bytes(needed)} and {format_bytes(reserve)} have to stay "
                f"free, but {self.directory} has {format_bytes(free)} left",
                hint="free space on the device, or lower limits.reserve in device.yaml",
            )

    def _left(self, descriptor: Descriptor) -> int:
        """How many bytes of a blob have not arrived yet."""
        partial = partial_path(self.path(descriptor.digest))
        try:
            return max(0, descriptor.size - partial.stat().st_size)
        except FileNotFoundError:
            return descriptor.size

    def prune(self, keep: set[Digest]) -> int:
        """Remove every other blob and what is left of downloads; returns how many files."""
        self.prepare()
        names = {digest.hex for digest in keep}
        removed = 0
        with storage_errors(f"cleaning {self.directory}"):
            for path in self.directory.iterdir():
                if path.name not in names:
                    remove(path)
                    removed += 1
            if removed:
                sync_directory(self.directory)
        return removed


def remove(path: Path) -> None:
    """Remove whatever is there, if anything; raises OSError."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _damaged(digest: Digest, path: Path) -> IntegrityError:
    return IntegrityError(
        f"blob {digest} is damaged on this device ({path})",
        hint="it is fetched again; if this comes back, check the device's disk",
    )
