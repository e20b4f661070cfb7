"""The one piece that python-tuf needs to read releases: file names to registry artifacts."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from tuf.api.exceptions import DownloadHTTPError
from tuf.ngclient.fetcher import FetcherInterface

from edgectl.digest import Digest
from edgectl.errors import NotFoundError
from edgectl.trust import metadata

if TYPE_CHECKING:
    from collections.abc import Iterator

    from edgectl.oci.descriptor import Descriptor
    from edgectl.oci.store import Repository

METADATA_URL = "oci:metadata/"
TARGETS_URL = "oci:targets/"
_VERSIONED = re.compile(r"(\d+)\.(root|snapshot|targets)\.json")
_HASHED = re.compile(r"(?:.*/)?([0-9a-f]{64})\.[^/]+")
_NOT_FOUND = 404


class RegistryFetcher(FetcherInterface):
    """Serves `METADATA_URL` and `TARGETS_URL` from the repository `trust` of a registry.

    Every byte comes through the store: verified against its digest, bounded by its descriptor,
    and by python-tuf's limits on top. What is absent is a 404 to python-tuf, as it has to be for
    the search of a newer root to end; every other error of the registry passes through as it is.
    """

    def __init__(self, repository: Repository) -> None:
        self._repository = repository
        self._documents: dict[Digest, Descriptor] = {}

    def expect(self, document: Descriptor) -> None:
        """Say how long a target file is, which its URL does not."""
        self._documents[document.digest] = document

    def _fetch(self, url: str) -> Iterator[bytes]:
        # A generator, so that errors are raised outside FetcherInterface.fetch, which would wrap
        # the registry's errors in its own.
        try:
            yield from self._repository.read_blob(self._locate(url))
        except NotFoundError as error:
            raise DownloadHTTPError(error.message, _NOT_FOUND) from error

    def _locate(self, url: str) -> Descriptor:
        name = url.removeprefix(METADATA_URL)
        if name == "timestamp.json":
            return metadata.find(self._repository, metadata.TIMESTAMP_TAG).metadata
        if match := _VERSIONED.fullmatch(name):
            return self._artifact(metadata.tag(match[2], int(match[1]))).metadata
        if url.startswith(TARGETS_URL) and (match := _HASHED.fullmatch(url)):
            return self._document(Digest(match[1]))
        raise NotFoundError(f"{url} is not a file of a release")

    def _artifact(self, tag: str) -> metadata.Artifact:
        artifact = metadata.find(self._repository, tag)
        for document in artifact.documents:
            self.expect(document)
        return artifact

    def _document(self, digest: Digest) -> Descriptor:
        if digest not in self._documents:
            # The targets metadata came from python-tuf's cache: ask the registry for its layers.
            timestamp = metadata.find(self._repository, metadata.TIMESTAMP_TAG)
            tag = timestamp.annotations.get(metadata.TARGETS_TAG)
            if tag is not None:
                self._artifact(tag)
        if digest not in self._documents:
            raise NotFoundError(f"no release leads to the document {digest}")
        return self._documents[digest]
