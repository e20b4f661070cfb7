"""Releases to publish, who publishes them, and a store that dies at a chosen write."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgectl.digest import Digest
from edgectl.trust.release import FleetRelease, ModelRef, Ring, Selector, SoakSettings
from edgectl.trust.repository import TrustRepository
from tests.unit.trust.conftest import PASSWORD

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import BinaryIO

    from edgectl.oci.descriptor import Descriptor
    from edgectl.oci.reference import RegistryLocation
    from edgectl.oci.store import Repository, Store


def opened(store: Store, directory: Path) -> TrustRepository:
    return TrustRepository(store, directory, password=lambda: PASSWORD)


def release(fleet: str, generation: int, version: str = "1.0.0") -> FleetRelease:
    model = ModelRef("digits", version, "models/digits", Digest.of(version.encode()))
    ring = Ring("stable", Selector(), SoakSettings(30.0, 0.01, {"digits": 0.9}), (model,))
    return FleetRelease(fleet, generation, Selector({"site": "berlin"}), (ring,), reason="apply")


class Killed(BaseException):
    """What SIGKILL is to the code that it hits: no handler runs."""


class DyingStore:
    """A store in front of another one that dies when no writes are left."""

    def __init__(self, inner: Store) -> None:
        self.inner = inner
        self.left = 0

    @property
    def location(self) -> RegistryLocation:
        return self.inner.location

    def repository(self, name: str) -> Repository:
        return _DyingRepository(self, self.inner.repository(name))

    def write(self) -> None:
        if self.left <= 0:
            raise Killed
        self.left -= 1


class _DyingRepository:
    def __init__(self, store: DyingStore, inner: Repository) -> None:
        self._store = store
        self._inner = inner

    @property
    def name(self) -> str:
        return self._inner.name

    def resolve(self, target: str) -> Descriptor | None:
        return self._inner.resolve(target)

    def read_manifest(self, target: str) -> tuple[Descriptor, bytes]:
        return self._inner.read_manifest(target)

    def has_blob(self, digest: Digest) -> bool:
        return self._inner.has_blob(digest)

    def read_blob(self, descriptor: Descriptor, *, offset: int = 0) -> Iterator[bytes]:
        return self._inner.read_blob(descriptor, offset=offset)

    def push_blob(self, descriptor: Descriptor, source: Path | bytes | BinaryIO) -> None:
        self._store.write()
        self._inner.push_blob(descriptor, source)

    def push_manifest(self, data: bytes, media_type: str, *, tag: str | None = None) -> Descriptor:
        self._store.write()
        return self._inner.push_manifest(data, media_type, tag=tag)

    def tag(self, descriptor: Descriptor, tag: str) -> None:
        self._store.write()
        self._inner.tag(descriptor, tag)

    def tags(self) -> dict[str, Digest | None]:
        return self._inner.tags()

    def referrers(self, digest: Digest, artifact_type: str | None = None) -> list[Descriptor]:
        return self._inner.referrers(digest, artifact_type)

    def delete(self, target: str) -> None:
        self._store.write()
        self._inner.delete(target)
