"""A store whose user dies right after its first write that changes something.

Nothing runs between the write and the end but what Python unwinds, and none of that writes to a
registry: what is left is what a SIGKILL leaves there.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from edgectl.oci.descriptor import Descriptor

if TYPE_CHECKING:
    from edgectl.oci.reference import RegistryLocation
    from edgectl.oci.store import Repository, Store


class DiedError(BaseException):
    """Nobody catches it."""


class DyingStore:
    """Another store, until the first write; every later one fails too, of whatever thread."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._dead = False

    @property
    def location(self) -> RegistryLocation:
        return self._store.location

    def repository(self, name: str) -> Repository:
        """One repository; in that of the releases nobody dies: every attempt signs anew there."""
        repository = self._store.repository(name)
        return repository if name == "trust" else DyingRepository(repository, self)

    def write(self, changes: bool, write: Any, *arguments: Any, **options: Any) -> Any:
        """Write, and die if that changed something."""
        with self._lock:
            if self._dead:
                raise DiedError
            result = write(*arguments, **options)
            self._dead = changes
        if changes:
            raise DiedError
        return result


class DyingRepository:
    """A repository of it: reads as ever."""

    def __init__(self, repository: Repository, store: DyingStore) -> None:
        self._repository = repository
        self._store = store

    def __getattr__(self, name: str) -> Any:
        return getattr(self._repository, name)

    def push_blob(self, descriptor: Descriptor, source: Any) -> None:
        changes = not self._repository.has_blob(descriptor.digest)
        self._store.write(changes, self._repository.push_blob, descriptor, source)

    def push_manifest(self, data: bytes, media_type: str, *, tag: str | None = None) -> Descriptor:
        made = Descriptor.of(data, media_type)
        changes = self._repository.resolve(str(made.digest)) is None or self._moves(made, tag)
        push = self._repository.push_manifest
        result: Descriptor = self._store.write(changes, push, data, media_type, tag=tag)
        return result

    def tag(self, descriptor: Descriptor, tag: str) -> None:
        moves = self._moves(descriptor, tag)
        self._store.write(moves, self._repository.tag, descriptor, tag)

    def delete(self, target: str) -> None:
        self._store.write(True, self._repository.delete, target)

    def _moves(self, descriptor: Descriptor, tag: str | None) -> bool:
        if tag is None:
            return False
        found = self._repository.resolve(tag)
        return found is None or found.digest != descriptor.digest
