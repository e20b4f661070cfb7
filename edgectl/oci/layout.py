"""The store in a directory: each repository below it is an OCI image layout of its own.

OCI image-spec v1.1, image-layout.md. Readers take no lock and write nothing, so a layout on
read-only media works. Writers hold a lock on the `oci-layout` file of the repository; what they
write appears by renaming, so a reader sees the old state or the new one.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, BinaryIO

from edgectl.digest import Digest
from edgectl.errors import (
    BusyError,
    ConfigError,
    IntegrityError,
    NotFoundError,
    RegistryDeniedError,
)
from edgectl.oci import referrers
from edgectl.oci.descriptor import MAX_MANIFEST_BYTES, Descriptor, parse_manifest
from edgectl.oci.filesystem import (
    TEMPORARY_PREFIX,
    open_file,
    read_at_most,
    replacing,
    storage_error,
    storage_errors,
    sync_directory,
    write_atomic,
)
from edgectl.oci.layout_index import LayoutIndex
from edgectl.oci.reference import RegistryLocation
from edgectl.oci.verify import (
    CHUNK_BYTES,
    check_bytes,
    read_verified,
    wrong_digest,
    wrong_size,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

_LAYOUT_FILE = b'{"imageLayoutVersion":"1.0.0"}'
_DENIED = {errno.EACCES, errno.EPERM, errno.EROFS}
_ABSENT = (FileNotFoundError, NotADirectoryError)
_ABANDONED_SECONDS = 24 * 3600.0
"""Age of a temporary file after which whoever wrote it is taken for dead."""
_CLOCK_TICK_NS = 50_000_000
"""Two changes closer than this can carry one time of change (a kernel tick, with margin)."""
_SECOND_NS = 1_000_000_000
_MARKS = {"oci-layout", "index.json", "blobs"}
"""What a directory has one of, if anything can be read from it as a repository. The standard wants
all three, but a reader needs `oci-layout` for nothing, and a digest without `index.json`."""
_MAX_INDEX_BYTES = 256 << 20
"""About a million entries: more than a repository has, less than a device's memory."""
_LOCK_SECONDS = 60.0
_LOCK_POLL_SECONDS = 0.005
_EMPTY = LayoutIndex()


class LayoutStore:
    """Every repository below one directory."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._repositories: dict[str, LayoutRepository] = {}

    @property
    def location(self) -> RegistryLocation:
        """Where this store is."""
        return RegistryLocation(str(self._root), is_layout=True)

    def repository(self, name: str) -> LayoutRepository:
        """One repository below the directory; raises ConfigError if the name leads elsewhere."""
        if not name or name.startswith("/") or ".." in PurePosixPath(name).parts:
            raise ConfigError(
                f"{name!r} is not a repository name", hint="for example models/digits"
            )
        return self._repositories.setdefault(name, LayoutRepository(self._root / name, name))

    def repositories(self) -> Iterator[LayoutRepository]:
        """Whatever below the directory `repository` would read something from, in sorted order.

        Links are followed; what several names lead to comes once, under the first of them. Raises
        StorageError.
        """
        seen: set[tuple[int, int]] = set()
        for here, below, names in os.walk(self._root, followlinks=True):
            directory = Path(here)
            with storage_errors(f"looking for repositories in {self.location}"):
                status = directory.stat()
            place = (status.st_dev, status.st_ino)
            if place in seen:
                below.clear()
                continue
            seen.add(place)
            if directory != self._root and not _MARKS.isdisjoint((*below, *names)):
                yield self.repository(directory.relative_to(self._root).as_posix())
            below.sort()


class LayoutRepository:
    """One OCI image layout."""

    def __init__(self, path: Path, name: str) -> None:
        self._path = path
        self._name = name
        self._blobs = path / "blobs" / "sha256"
        self._index_file = path / "index.json"
        self._cache = _Cache((), 0, None, _EMPTY)
        self._prepared = False

    @property
    def name(self) -> str:
        """The name below the store's directory."""
        return self._name

    def resolve(self, target: str) -> Descriptor | None:
        """Describe a tag or digest; None if absent."""
        index = self._index()
        digest = _digest_or_none(target)
        if digest is None:
            return index.tags.get(target)
        return index.manifests.get(digest) or self._unlisted(digest)

    def read_manifest(self, target: str) -> tuple[Descriptor, bytes]:
        """Read a manifest by tag or digest, verified."""
        descriptor = self.resolve(target)
        if descriptor is None:
            raise NotFoundError(
                f"oci-layout:{self._path} has no manifest {target}",
                hint=None if self._path.is_dir() else f"{self._path} is not there",
            )
        data = self._read_small(descriptor.digest)
        check_bytes(data, descriptor)
        return descriptor, data

    def has_blob(self, digest: Digest) -> bool:
        """Whether the blob is there."""
        with self._errors(f"looking for {digest}"):
            return self._blob(digest).is_file()

    def check_blobs(self) -> Iterator[int]:
        """Hash every blob that is there, referenced or not, yielding the size of each.

        Raises IntegrityError naming the first one that is not what its name says.
        """
        with self._errors("checking the blobs"):
            for path in sorted(self._blobs.glob("*")):
                with open_file(path):
                    found = Digest.of_file(path)
                if found.hex != path.name:
                    raise IntegrityError(
                        f"oci-layout:{self._path}: blob sha256:{path.name} hashes to {found}",
                        hint="copy the directory again from where it was made; there, delete the "
                        "blob and the repository's tags applied-…, and apply again",
                    )
                yield path.stat().st_size

    def read_blob(self, descriptor: Descriptor, *, offset: int = 0) -> Iterator[bytes]:
        """Stream a blob from `offset`, verified as `Repository.read_blob` says."""
        digest = descriptor.digest
        with self._errors(f"reading {digest}"), self._open(digest) as file:
            size = os.fstat(file.fileno()).st_size
            if size != descriptor.size:
                raise wrong_size(descriptor, size)
            file.seek(offset)
            yield from read_verified(file.read, descriptor, offset=offset)

    def push_blob(self, descriptor: Descriptor, source: Path | bytes | BinaryIO) -> None:
        """Store a blob unless it is there, whole."""
        with self._errors(f"writing {descriptor.digest}"):
            path = self._blob(descriptor.digest)
            if path.is_file() and path.stat().st_size == descriptor.size:
                return
            self._prepare()
            if isinstance(source, bytes):
                self._write_blob(path, descriptor, BytesIO(source))
            elif isinstance(source, Path):
                with source.open("rb") as file:
                    self._write_blob(path, descriptor, file)
            else:
                self._write_blob(path, descriptor, source)

    def push_manifest(self, data: bytes, media_type: str, *, tag: str | None = None) -> Descriptor:
        """Store a manifest, tag it, and list it as a referrer of its subject if it has one."""
        subject = parse_manifest(data).subject
        descriptor = Descriptor.of(data, media_type)
        self.push_blob(descriptor, data)
        with self._errors(f"writing {self._index_file}"), self._locked():
            index = self._index().with_manifest(descriptor, tag)
            if subject is not None:
                listed = self._fallback(index, subject.digest)
                fallback = referrers.added(listed, referrers.describe(data, media_type))
                index = self._with_fallback(index, subject.digest, fallback)
            self._write_index(index)
        return descriptor

    def tag(self, descriptor: Descriptor, tag: str) -> None:
        """Point a tag at a manifest that is there already."""
        with self._errors(f"writing {self._index_file}"), self._locked():
            found = self.resolve(str(descriptor.digest))
            if found is None:
                raise NotFoundError(f"{self._name} has no manifest {descriptor.digest} to tag")
            self._write_index(self._index().with_manifest(found, tag))

    def tags(self) -> dict[str, Digest | None]:
        """Every tag with its digest, in sorted order."""
        return {tag: descriptor.digest for tag, descriptor in self._index().tags.items()}

    def referrers(self, digest: Digest, artifact_type: str | None = None) -> list[Descriptor]:
        """Manifests whose subject is `digest`."""
        listed = self._fallback(self._index(), digest)
        return referrers.of_type(listed, artifact_type, self.read_manifest)

    def delete(self, target: str) -> None:
        """Remove a tag, or a manifest by digest."""
        digest = _digest_or_none(target)
        found = self.resolve(target)
        if found is None:
            return
        with self._errors(f"deleting {target}"), self._locked():
            if digest is None:
                self._write_index(self._index().without_tag(target))
                return
            subject = parse_manifest(self.read_manifest(target)[1]).subject
            index = self._index().without_manifest(digest)
            if subject is not None:
                fallback = referrers.removed(self._fallback(index, subject.digest), digest)
                index = self._with_fallback(index, subject.digest, fallback)
            self._write_index(index)
            self._blob(digest).unlink(missing_ok=True)

    def _blob(self, digest: Digest) -> Path:
        return self._blobs / digest.hex

    def _open(self, digest: Digest) -> BinaryIO:
        try:
            return open_file(self._blob(digest))
        except _ABSENT as error:
            raise NotFoundError(f"oci-layout:{self._path} has no blob {digest}") from error

    def _read_small(self, digest: Digest) -> bytes:
        with self._errors(f"reading {digest}"), self._open(digest) as file:
            data = read_at_most(file, MAX_MANIFEST_BYTES + 1)
        if len(data) > MAX_MANIFEST_BYTES:
            raise IntegrityError(f"manifest {digest} is larger than {MAX_MANIFEST_BYTES} bytes")
        return data

    def _unlisted(self, digest: Digest) -> Descriptor | None:
        """A manifest that other tools keep without listing it, as part of an index."""
        if not self.has_blob(digest):
            return None
        try:
            data = self._read_small(digest)
            manifest = parse_manifest(data)
        except IntegrityError:
            return None  # a blob that is no manifest, as a registry would say
        return Descriptor(manifest.media_type, digest, len(data))

    def _write_blob(self, path: Path, descriptor: Descriptor, source: BinaryIO) -> None:
        hasher = hashlib.sha256()
        size = 0
        with replacing(path, self._path) as file:
            while chunk := source.read(CHUNK_BYTES):
                size += len(chunk)
                if size > descriptor.size:
                    break
                hasher.update(chunk)
                file.write(chunk)
            if size != descriptor.size:
                raise wrong_size(descriptor, size)
            if hasher.hexdigest() != descriptor.digest.hex:
                raise wrong_digest(descriptor, hasher.hexdigest())

    def _fallback(self, index: LayoutIndex, subject: Digest) -> list[Descriptor]:
        found = index.tags.get(referrers.fallback_tag(subject))
        if found is None:
            return []
        data = self._read_small(found.digest)
        check_bytes(data, found)
        return referrers.listed(data)

    def _with_fallback(
        self, index: LayoutIndex, subject: Digest, data: bytes | None
    ) -> LayoutIndex:
        if data is None:
            return index
        descriptor = Descriptor.of(data, parse_manifest(data).media_type)
        self.push_blob(descriptor, data)
        tag = referrers.fallback_tag(subject)
        return index.with_manifest(descriptor, tag, keep_replaced=False)

    def _index(self) -> LayoutIndex:
        """`index.json`, parsed again only when it changed."""
        with self._errors(f"reading {self._index_file}"):
            try:
                with open_file(self._index_file) as file:
                    status = os.fstat(file.fileno())
                    cache = self._cache
                    if cache.is_of(status):
                        return cache.index
                    read_ns = time.time_ns()
                    if status.st_size > _MAX_INDEX_BYTES:
                        raise IntegrityError(
                            f"{self._index_file} is over {_MAX_INDEX_BYTES >> 20} MiB",
                            hint="is it an image layout's index?",
                        )
                    data = read_at_most(file, _MAX_INDEX_BYTES)
            except _ABSENT:
                return _EMPTY
        try:
            index = cache.index if data == cache.data else LayoutIndex.from_bytes(data)
        except IntegrityError as error:
            raise IntegrityError(
                f"{self._index_file}: {error}", hint="restore it, or push into a new directory"
            ) from error
        self._cache = _Cache(_key(status), read_ns, data, index)
        return index

    def _write_index(self, index: LayoutIndex) -> None:
        """Replace `index.json`; the lock is held."""
        if index is self._index():
            return
        data = index.to_bytes()
        write_atomic(self._index_file, data)
        self._cache = _Cache(_key(self._index_file.stat()), time.time_ns(), data, index)

    def _prepare(self) -> None:
        """Make the layout's directories, and remove what killed writers left behind."""
        if self._prepared:
            return
        self._blobs.mkdir(parents=True, exist_ok=True)
        abandoned = time.time() - _ABANDONED_SECONDS
        for leftover in self._path.glob(f"{TEMPORARY_PREFIX}*"):
            with suppress(FileNotFoundError):  # its writer is alive and has renamed it
                if leftover.stat().st_mtime < abandoned:
                    leftover.unlink()
        with self._lock():
            if not self._index_file.exists():
                write_atomic(self._index_file, LayoutIndex().to_bytes())
        sync_directory(self._path.parent)
        self._prepared = True

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Hold the lock of a layout that is there; under it, pushing a blob takes no second one."""
        self._prepare()
        with self._lock():
            yield

    @contextmanager
    def _lock(self) -> Iterator[None]:
        """Hold the repository's lock against other threads and processes.

        The lock is on `oci-layout`, the one file that is never replaced: no lock file of ours
        has to live in a directory that a standard describes.
        """
        handle = os.open(self._path / "oci-layout", os.O_RDWR | os.O_CREAT, 0o644)
        try:
            self._wait_for_lock(handle)
            if os.fstat(handle).st_size != len(_LAYOUT_FILE):
                os.ftruncate(handle, 0)
                os.pwrite(handle, _LAYOUT_FILE, 0)
                os.fsync(handle)
            yield
        finally:
            os.close(handle)

    def _wait_for_lock(self, handle: int) -> None:
        deadline = time.monotonic() + _LOCK_SECONDS
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                if time.monotonic() > deadline:
                    raise BusyError(
                        f"another process keeps oci-layout:{self._path} locked",
                        hint="wait for it, or end it",
                    ) from error
                time.sleep(_LOCK_POLL_SECONDS)
            else:
                return

    @contextmanager
    def _errors(self, doing: str) -> Iterator[None]:
        where = f"{doing} in oci-layout:{self._path}"
        try:
            yield
        except OSError as error:
            if error.errno in _DENIED:
                raise RegistryDeniedError(
                    f"{where}: {error.strerror}", hint="is the directory yours, and not read-only?"
                ) from error
            raise storage_error(error, where) from error


@dataclass(frozen=True, slots=True)
class _Cache:
    """The parsed `index.json`, and how to tell that it is still the one on disk."""

    key: tuple[int, ...]
    read_ns: int
    data: bytes | None
    """None before it was read."""
    index: LayoutIndex

    def is_of(self, status: os.stat_result) -> bool:
        """Whether a file of this status surely has not changed since.

        Never where times are whole seconds, as on FAT: there a program sets the time of change
        together with that of modification, and two changes easily share one.
        """
        changed = status.st_ctime_ns
        return (
            self.key == _key(status)
            and changed % _SECOND_NS != 0
            and self.read_ns - changed > _CLOCK_TICK_NS
        )


def _key(status: os.stat_result) -> tuple[int, ...]:
    """What differs when a file was changed, or replaced by another.

    The time of change above all: what unpacks, copies or synchronises a directory sets the time
    of modification, to the same for every delivery where deliveries are to be reproducible.
    """
    return (
        status.st_dev,
        status.st_ino,
        status.st_size,
        status.st_mtime_ns,
        status.st_ctime_ns,
    )


def _digest_or_none(target: str) -> Digest | None:
    """The digest that a target is; None if it is a tag. NotFoundError if neither."""
    if ":" not in target:
        return None
    try:
        return Digest.parse(target)
    except ValueError as error:
        raise NotFoundError(f"{target!r} is neither a tag nor a sha256 digest") from error
