"""Local copies of what steps take in: files of the repository, remote sources, earlier results."""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Self

from edgectl.digest import Digest
from edgectl.errors import IntegrityError, RegistryUnavailableError, SourceError
from edgectl.oci.access import open_store
from edgectl.oci.descriptor import Manifest, parse_manifest
from edgectl.oci.reference import Reference

if TYPE_CHECKING:
    from edgectl.desired import PinnedFile
    from edgectl.oci.access import Access
    from edgectl.oci.descriptor import Descriptor
    from edgectl.oci.store import Repository

_CHUNK_BYTES = 1 << 20
_MAX_SOURCE_BYTES = 16 << 30
_TIMEOUT_SECONDS = 60.0


class Inputs:
    """Fetches each input once into the working directory of an apply, verified."""

    def __init__(self, work: Path, access: Access) -> None:
        self._work = work
        self._access = access

    def pinned(self, file: PinnedFile) -> Path:
        """A pinned file on this machine.

        Raises SourceError if it is not what it was when the plan was made, or cannot be fetched.
        """
        if file.path is not None:
            if Digest.of_file(file.path) != file.digest:
                raise SourceError(
                    f"{file.path} changed while edgectl was running",
                    hint="run the same command again",
                )
            return file.path
        path = self._work / f"source-{file.digest.hex}"
        if not path.exists():
            remote = file.remote or ""
            fetch = self._download if remote.startswith("https://") else self._pull
            fetch(remote, file.digest, path)
        return path

    def blob(self, repository: Repository, descriptor: Descriptor) -> Path:
        """A blob of a registry on this machine."""
        path = self._work / descriptor.digest.hex
        if not path.exists():
            with _Writing(path) as writing:
                for chunk in repository.read_blob(descriptor):
                    writing.write(chunk)
        return path

    def _download(self, url: str, digest: Digest, path: Path) -> None:
        import requests

        try:
            with requests.get(url, stream=True, timeout=_TIMEOUT_SECONDS) as response:
                if response.status_code != requests.codes.ok:
                    raise SourceError(f"{url} answers {response.status_code} {response.reason}")
                with _Writing(path) as writing:
                    for chunk in response.iter_content(_CHUNK_BYTES):
                        writing.write(chunk)
                    writing.expect(digest, url)
        except requests.RequestException as error:
            raise RegistryUnavailableError(
                f"cannot fetch {url}: {error}", hint="is the address right, and the network there?"
            ) from error

    def _pull(self, reference: str, digest: Digest, path: Path) -> None:
        """The single layer of an artifact."""
        parsed = Reference.parse(reference)
        repository = open_store(parsed.location, self._access).repository(parsed.name)
        _, data = repository.read_manifest(str(digest))
        manifest = parse_manifest(data)
        if not isinstance(manifest, Manifest) or len(manifest.layers) != 1:
            raise SourceError(
                f"{reference} is not an artifact of one file",
                hint="push the model file alone, for example with oras push",
            )
        self.blob(repository, manifest.layers[0]).rename(path)


class _Writing:
    """A bounded file that appears under its name only when it is whole."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._hasher = hashlib.sha256()
        self._size = 0

    def __enter__(self) -> Self:
        handle, name = tempfile.mkstemp(dir=self._path.parent)
        self._temporary = Path(name)
        self._file = os.fdopen(handle, "wb")
        return self

    def write(self, chunk: bytes) -> None:
        self._size += len(chunk)
        if self._size > _MAX_SOURCE_BYTES:
            raise SourceError(f"{self._path.name} is larger than {_MAX_SOURCE_BYTES >> 30} GiB")
        self._hasher.update(chunk)
        self._file.write(chunk)

    def expect(self, digest: Digest, what: str) -> None:
        if self._hasher.hexdigest() != digest.hex:
            raise IntegrityError(
                f"{what} has sha256 {self._hasher.hexdigest()}, not {digest.hex}",
                hint="correct sha256 in the manifest if the change is meant",
            )

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._file.close()
        if kind is None:
            self._temporary.replace(self._path)
        else:
            self._temporary.unlink(missing_ok=True)
