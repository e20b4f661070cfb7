"""Local copies of what steps take in: files of the repository, remote sources, earlier results."""

from __future__ import annotations

import hashlib
import threading
from collections import defaultdict
from pathlib import PurePosixPath
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from edgectl.build.process import CancelledError
from edgectl.digest import Digest
from edgectl.errors import NotFoundError, RegistryDeniedError, SourceError
from edgectl.oci.access import Access, open_store
from edgectl.oci.descriptor import TITLE, Manifest, parse_manifest
from edgectl.oci.filesystem import partial_path
from edgectl.oci.reference import Reference

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from pathlib import Path

    from edgectl.desired import PinnedFile
    from edgectl.oci.descriptor import Descriptor
    from edgectl.oci.reference import RegistryLocation
    from edgectl.oci.store import Repository

_CHUNK_BYTES = 1 << 20
MAX_SOURCE_BYTES = 16 << 30


class Inputs:
    """Fetches each input once into the working directory of an apply, verified.

    Several threads may call it. Raises CancelledError once `cancel` is set, and OSError.
    """

    def __init__(
        self,
        work: Path,
        registry: RegistryLocation,
        access: Access,
        *,
        cancel: threading.Event,
        limit: int = MAX_SOURCE_BYTES,
    ) -> None:
        """`access` reaches `registry`; its credentials are not for any other host."""
        self._work = work
        self._registry = registry
        self._access = access
        self._elsewhere = Access(
            docker_config=access.docker_config,
            timeout=access.timeout,
            slow_after=access.slow_after,
        )
        self._cancel = cancel
        self._limit = limit
        self._locks: defaultdict[Path, threading.Lock] = defaultdict(threading.Lock)

    def pinned(self, file: PinnedFile) -> Path:
        """A pinned file on this machine.

        Raises SourceError if it is not what it was when the plan was made, is not to be had, or is
        something else than was pinned; RegistryUnavailableError if its server does not answer.
        """
        if file.path is not None:
            if _digest_of(file.path) != file.digest:
                raise SourceError(
                    f"{file.path} changed while edgectl was running",
                    hint="run the same command again",
                )
            return file.path
        remote = file.remote or ""
        fetch = self._download if remote.startswith("https://") else self._pull
        name = f"source-{file.digest.hex}"
        return self._once(name, lambda path: fetch(remote, file.digest, path))

    def blob(self, repository: Repository, descriptor: Descriptor) -> Path:
        """A blob of a registry on this machine."""
        return self._once(
            descriptor.digest.hex,
            lambda path: self._write(path, repository.read_blob(descriptor), repository.name),
        )

    def tree(self, repository: Repository, files: Mapping[str, Descriptor]) -> Path:
        """Blobs of a registry as a directory on this machine, by relative path."""
        digest = Digest.of_files({name: file.digest for name, file in files.items()})
        blobs = {name: self.blob(repository, file) for name, file in files.items()}

        def link(directory: Path) -> None:
            for name, blob in blobs.items():
                target = directory / name
                target.parent.mkdir(parents=True, exist_ok=True)
                target.hardlink_to(blob)

        return self._once(f"tree-{digest.hex}", link)

    def _once(self, name: str, fetch: Callable[[Path], object]) -> Path:
        """The file of a name, fetched by the first who wants it; the others wait for it."""
        path = self._work / name
        with self._locks[path]:
            if not path.exists():
                partial = partial_path(path)
                fetch(partial)
                partial.replace(path)
        return path

    def _download(self, url: str, digest: Digest, path: Path) -> None:
        from edgectl.oci.session import Client

        parts = urlsplit(url)
        # A query can be a signature that grants access: it is not for logs.
        shown = f"https://{parts.netloc}{parts.path}"
        client = Client(parts.netloc, self._elsewhere)
        try:
            with client.request("GET", url, repository="", doing=f"fetching {shown}") as response:
                chunks = iter(lambda: response.read(_CHUNK_BYTES), b"")
                found = self._write(path, chunks, shown)
        except (NotFoundError, RegistryDeniedError) as error:
            raise SourceError(
                error.message, hint="is source.url right, and may anybody read it?"
            ) from error
        if found != digest:
            raise SourceError(
                f"{shown} has sha256 {found.hex}, but its manifest declares {digest.hex}",
                hint="correct sha256 in the manifest if the change is meant",
            )

    def _pull(self, reference: str, digest: Digest, path: Path) -> None:
        """The layer of an artifact; a directory where it has several, each with its title."""
        parsed = Reference.parse(reference)
        at_home = parsed.location.base == self._registry.base
        access = self._access if at_home else self._elsewhere
        repository = open_store(parsed.location, access).repository(parsed.name)
        try:
            _, data = repository.read_manifest(str(digest))
        except NotFoundError as error:
            raise SourceError(error.message, hint="is source.oci right?") from error
        manifest = parse_manifest(data)
        if not isinstance(manifest, Manifest) or not manifest.layers:
            raise SourceError(
                f"{reference} is not an artifact of files",
                hint="push the model's files, for example with oras push",
            )
        if len(manifest.layers) == 1:
            self._write(path, repository.read_blob(manifest.layers[0]), reference)
            return
        for layer in manifest.layers:
            target = path / _confined(layer.annotations.get(TITLE, ""), reference)
            target.parent.mkdir(parents=True, exist_ok=True)
            self._write(target, repository.read_blob(layer), reference)

    def _write(self, path: Path, chunks: Iterable[bytes], what: str) -> Digest:
        """Write what arrives, as long as it is not too much; returns the digest of all of it."""
        hasher = hashlib.sha256()
        with path.open("wb") as file:
            for chunk in self._bounded(chunks, what):
                hasher.update(chunk)
                file.write(chunk)
        return Digest(hasher.hexdigest())

    def _bounded(self, chunks: Iterable[bytes], what: str) -> Iterator[bytes]:
        size = 0
        for chunk in chunks:
            if self._cancel.is_set():
                raise CancelledError
            size += len(chunk)
            if size > self._limit:
                raise SourceError(
                    f"{what} is larger than {self._limit} bytes",
                    hint="is that the model file, and no archive of many?",
                )
            yield chunk


def _confined(title: str, reference: str) -> str:
    """A layer's title as a path below a directory; raises SourceError if it leads elsewhere."""
    path = PurePosixPath(title)
    if not title or path.is_absolute() or ".." in path.parts or "\\" in title or "\0" in title:
        raise SourceError(
            f"{reference} has a layer whose title is no file name: {title[:80]!r}",
            hint="push the model's files, for example with oras push",
        )
    return title


def _digest_of(path: Path) -> Digest:
    try:
        return Digest.of_tree(path) if path.is_dir() else Digest.of_file(path)
    except OSError as error:
        raise SourceError(
            f"{path} cannot be read any more: {error.strerror}", hint="run the same command again"
        ) from error
