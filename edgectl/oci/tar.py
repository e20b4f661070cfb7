"""Layer archives that are the same bytes for the same files, on any machine at any time."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import tarfile
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, BinaryIO

from edgectl.digest import Digest
from edgectl.errors import ConfigError, SourceError
from edgectl.oci.descriptor import OCI_LAYER, OCI_LAYER_GZIP, Descriptor
from edgectl.oci.filesystem import replacing, storage_errors
from edgectl.oci.verify import CHUNK_BYTES

if TYPE_CHECKING:
    from collections.abc import Mapping

_GZIP_LEVEL = 6
_MAX_EPOCH_DIGITS = 10
"""Until the year 2286; with more, a date no longer fits where archives and configs keep it."""


def source_date_epoch() -> int:
    """Seconds for every timestamp that a digest covers: `SOURCE_DATE_EPOCH`, else 0.

    Follows reproducible-builds.org's specification; raises ConfigError if it is not a number.
    """
    text = os.environ.get("SOURCE_DATE_EPOCH", "0")
    if not (text.isascii() and text.isdigit() and len(text) <= _MAX_EPOCH_DIGITS):
        raise ConfigError(
            f"SOURCE_DATE_EPOCH is {text[:40]!r}, not a number of seconds that a file can carry",
            hint="for example 0",
        )
    return int(text)


def build_layer(
    files: Mapping[str, Path], dest: Path, *, compress: bool = False, mtime: int | None = None
) -> tuple[Descriptor, Digest]:
    """Write a layer with `files` (path inside the image -> file here) to `dest`.

    Entries are sorted, owned by root, dated `mtime` (default: `source_date_epoch()`), directories
    and executables 0755 and other files 0644; links are followed. Uncompressed unless `compress`:
    weights hardly shrink, and what gzip makes of them changes with the version of zlib.

    Returns the layer's descriptor and its diff_id, the digest of the uncompressed archive
    (image-spec, config.md). Raises SourceError if a file cannot be read or becomes shorter
    meanwhile, ValueError if a path is not absolute and normal, StorageFullError and StorageError.
    """
    date = source_date_epoch() if mtime is None else mtime
    with storage_errors(f"writing {dest}"), replacing(dest) as file:
        blob = _HashingWriter(file)
        if compress:
            packed = _open_gzip(blob, date)
            archive = _HashingWriter(packed)
            _write_tar(files, archive, date)
            packed.close()
        else:
            archive = blob
            _write_tar(files, archive, date)
    media_type = OCI_LAYER_GZIP if compress else OCI_LAYER
    return Descriptor(media_type, blob.digest, blob.size), archive.digest


def _open_gzip(sink: _HashingWriter, date: int) -> gzip.GzipFile:
    return gzip.GzipFile("", "wb", _GZIP_LEVEL, sink, mtime=date)


def _write_tar(files: Mapping[str, Path], sink: _HashingWriter, date: int) -> None:
    names = {_relative(name): source for name, source in files.items()}
    directories = {
        str(parent) for name in names for parent in PurePosixPath(name).parents if parent.name
    }
    clashes = directories & names.keys()
    if clashes:
        raise ValueError(f"{min(clashes)!r} is both a file and a directory of the layer")
    with tarfile.open(
        fileobj=sink, mode="w|", bufsize=CHUNK_BYTES, format=tarfile.PAX_FORMAT
    ) as tar:
        for name in sorted(directories | names.keys()):
            if name in directories:
                tar.addfile(_entry(name, date, tarfile.DIRTYPE, 0o755))
            else:
                _add_file(tar, name, names[name], date)


def _add_file(tar: tarfile.TarFile, name: str, source: Path, date: int) -> None:
    try:
        file = source.open("rb")
    except OSError as error:
        raise SourceError(f"{source}: {error.strerror or error}") from error
    with file:
        status = os.fstat(file.fileno())
        mode = 0o755 if status.st_mode & 0o100 else 0o644
        entry = _entry(name, date, tarfile.REGTYPE, mode)
        entry.size = status.st_size
        try:
            tar.addfile(entry, file)
        except OSError as error:
            if error.errno is not None:
                raise
            raise SourceError(f"{source} became shorter while it was read") from error


def _entry(name: str, date: int, kind: bytes, mode: int) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.type = kind
    entry.mode = mode
    entry.mtime = date
    return entry


def _relative(name: str) -> str:
    path = PurePosixPath(name)
    if not path.is_absolute() or str(path) != name or ".." in path.parts or name == "/":
        raise ValueError(f"{name!r} is not an absolute, normal path of a file in the image")
    return name.removeprefix("/")


class _HashingWriter(io.RawIOBase):
    """Counts and hashes what goes through."""

    def __init__(self, sink: BinaryIO | gzip.GzipFile) -> None:
        self._sink = sink
        self._hasher = hashlib.sha256()
        self.size = 0

    def writable(self) -> bool:
        return True

    def write(self, data: bytes) -> int:  # type: ignore[override]
        self._sink.write(data)
        self._hasher.update(data)
        self.size += len(data)
        return len(data)

    @property
    def digest(self) -> Digest:
        """The digest of everything written so far."""
        return Digest(self._hasher.hexdigest())
