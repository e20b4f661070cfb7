"""Move content between repositories and to files: resumable pulls, whole trees, walks."""

from __future__ import annotations

import hashlib
import io
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO

from edgectl.errors import IntegrityError
from edgectl.oci.descriptor import (
    DOCKER_INDEX,
    DOCKER_MANIFEST,
    OCI_INDEX,
    OCI_MANIFEST,
    Descriptor,
    Index,
    Manifest,
    parse_manifest,
)
from edgectl.oci.filesystem import partial_path, storage_errors, sync_directory
from edgectl.oci.verify import CHUNK_BYTES, check_bytes, wrong_digest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from edgectl.digest import Digest
    from edgectl.oci.store import Repository

    Progress = Callable[[int], None]
    """Told how many more bytes have arrived."""

MANIFEST_TYPES = frozenset({OCI_MANIFEST, OCI_INDEX, DOCKER_MANIFEST, DOCKER_INDEX})
_MAX_DEPTH = 8
"""Indexes within indexes; image-spec names no use for more than two."""


def pull_blob(
    repository: Repository,
    descriptor: Descriptor,
    path: Path,
    *,
    on_progress: Progress | None = None,
) -> None:
    """Fetch a blob into a file, going on where an earlier attempt was interrupted.

    What has arrived waits in `<path>.partial`. Only whole and verified content becomes `path`;
    if the resumed whole hashes to something else, it is thrown away and fetched once more from
    the start. Memory stays constant. Raises what `Repository.read_blob` does, StorageFullError
    and StorageError; after RegistryUnavailableError a later call resumes.
    """
    partial = partial_path(path)
    with storage_errors(f"writing {path}"):
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("ab+") as file:
            resumed = file.tell() > 0
            try:
                _fill(repository, descriptor, file, on_progress)
            except IntegrityError:
                file.truncate(0)
                if not resumed:
                    raise
                _fill(repository, descriptor, file, on_progress)
            os.fsync(file.fileno())
        partial.replace(path)
        sync_directory(path.parent)


def _fill(
    repository: Repository,
    descriptor: Descriptor,
    file: BinaryIO,
    on_progress: Progress | None,
) -> None:
    """Append what is missing; raises IntegrityError if the whole is not what was declared."""
    hasher = hashlib.sha256()
    offset = _hash_file(file, hasher)
    if offset > descriptor.size:
        raise wrong_digest(descriptor, hasher.hexdigest())
    if on_progress is not None:
        on_progress(offset)
    for chunk in repository.read_blob(descriptor, offset=offset):
        file.write(chunk)
        if offset:
            hasher.update(chunk)
        if on_progress is not None:
            on_progress(len(chunk))
    file.flush()
    if offset and hasher.hexdigest() != descriptor.digest.hex:
        raise wrong_digest(descriptor, hasher.hexdigest())


def _hash_file(file: BinaryIO, hasher: hashlib._Hash) -> int:
    file.seek(0)
    size = 0
    while chunk := file.read(CHUNK_BYTES):
        hasher.update(chunk)
        size += len(chunk)
    return size


@dataclass(frozen=True, slots=True)
class Node:
    """One descriptor of a tree; `manifest` and `data` where it is a manifest or index."""

    descriptor: Descriptor
    manifest: Manifest | Index | None = None
    data: bytes = b""


def walk(repository: Repository, descriptor: Descriptor) -> Iterator[Node]:
    """Everything below a manifest or index, itself last: each digest once, children first.

    Every manifest is read and verified; blobs are not read. Raises NotFoundError and
    IntegrityError.
    """
    yield from _walk(repository, descriptor, set())


def _walk(
    repository: Repository, descriptor: Descriptor, seen: set[Digest], depth: int = 0
) -> Iterator[Node]:
    if descriptor.digest in seen:
        return
    if depth > _MAX_DEPTH:
        raise IntegrityError(f"{descriptor.digest} lies more than {_MAX_DEPTH} indexes deep")
    seen.add(descriptor.digest)
    if descriptor.media_type not in MANIFEST_TYPES:
        yield Node(descriptor)
        return
    _, data = repository.read_manifest(str(descriptor.digest))
    check_bytes(data, descriptor)
    manifest = parse_manifest(data)
    children = manifest.manifests if isinstance(manifest, Index) else manifest.blobs
    for child in children:
        yield from _walk(repository, child, seen, depth + 1)
    yield Node(descriptor, manifest, data)


def copy_tree(
    source: Repository,
    descriptor: Descriptor,
    target: Repository,
    *,
    tag: str | None = None,
    with_referrers: bool = True,
) -> None:
    """Copy a manifest or index with everything below it, and what refers to any of it.

    Blobs go before the manifests that name them, so that the target is consistent at any moment.
    What is there already is not read again.
    """
    pending = [descriptor]
    done: set[Digest] = set()
    while pending:
        current = pending.pop()
        for node in _walk(source, current, done):
            if node.manifest is None:
                _copy_blob(source, node.descriptor, target)
                continue
            is_root = node.descriptor.digest == descriptor.digest
            target.push_manifest(
                node.data, node.descriptor.media_type, tag=tag if is_root else None
            )
            if with_referrers:
                pending += source.referrers(node.descriptor.digest)


def _copy_blob(source: Repository, descriptor: Descriptor, target: Repository) -> None:
    if target.has_blob(descriptor.digest):
        return
    with io.BufferedReader(_BlobFile(source.read_blob(descriptor)), CHUNK_BYTES) as file:
        target.push_blob(descriptor, file)


class _BlobFile(io.RawIOBase):
    """A stream of chunks as a file that is read once."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        if not self._rest:
            self._rest = memoryview(next(self._chunks, b""))
        count = min(len(buffer), len(self._rest))
        buffer[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count
