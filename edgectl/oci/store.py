"""What every registry can do, whether it is a directory or a server.

Reads are verified: bytes that do not hash to what was asked for never reach the caller as the end
of a successful read. Nothing here knows what the artifacts mean.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import BinaryIO

    from edgectl.digest import Digest
    from edgectl.oci.descriptor import Descriptor
    from edgectl.oci.reference import RegistryLocation


class Repository(Protocol):
    """One repository of a store.

    Every method raises the errors of `edgectl.errors`: RegistryUnavailableError (no answer, 429,
    5xx; `retry_after` set where the server said), RegistryDeniedError (401, 403, read-only),
    StorageFullError, NotFoundError, IntegrityError.
    """

    @property
    def name(self) -> str:
        """The name below the store's location, for example `models/digits`."""
        ...

    def resolve(self, target: str) -> Descriptor | None:
        """Describe a tag or `sha256:…` digest of a manifest with one HEAD; None if absent."""
        ...

    def read_manifest(self, target: str) -> tuple[Descriptor, bytes]:
        """Read a manifest by tag or digest, at most MAX_MANIFEST_BYTES, verified."""
        ...

    def has_blob(self, digest: Digest) -> bool:
        """Whether the blob is there (HEAD)."""
        ...

    def read_blob(self, descriptor: Descriptor, *, offset: int = 0) -> Iterator[bytes]:
        """Stream a blob's bytes from `offset`, never past `descriptor.size`.

        From offset 0 the whole is verified: the last chunk is withheld until the digest matched,
        IntegrityError else. From another offset only the length is checked, and whoever resumes
        verifies the whole (`edgectl.oci.transfer.pull_blob` does). Raises NotFoundError.
        """
        ...

    def push_blob(self, descriptor: Descriptor, source: Path | bytes | BinaryIO) -> None:
        """Store a blob unless it is there; verified while it is sent."""
        ...

    def push_manifest(self, data: bytes, media_type: str, *, tag: str | None = None) -> Descriptor:
        """Store a manifest under its digest, and under a tag when one is given.

        If it has a `subject`, it is a referrer of it afterwards (`referrers` lists it).
        """
        ...

    def tag(self, descriptor: Descriptor, tag: str) -> None:
        """Point a tag at a manifest that is there already."""
        ...

    def tags(self) -> dict[str, Digest | None]:
        """Every tag in sorted order, with its digest where knowing it costs no further request.

        An absent repository has no tags.
        """
        ...

    def referrers(self, digest: Digest, artifact_type: str | None = None) -> list[Descriptor]:
        """Manifests whose `subject` is `digest`: referrers API, else the `sha256-<hex>` tag."""
        ...

    def delete(self, target: str) -> None:
        """Remove a tag, or a manifest by digest; nothing happens if it is absent."""
        ...


class Store(Protocol):
    """A registry location."""

    @property
    def location(self) -> RegistryLocation:
        """Where this store is."""
        ...

    def repository(self, name: str) -> Repository:
        """One repository below the location; it need not exist yet."""
        ...
