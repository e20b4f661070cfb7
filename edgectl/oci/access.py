"""Open the store that a location names, and what a reference names in it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edgectl.errors import NotFoundError
from edgectl.oci.reference import Reference

if TYPE_CHECKING:
    from edgectl.oci.descriptor import Descriptor
    from edgectl.oci.layout import LayoutStore
    from edgectl.oci.reference import RegistryLocation
    from edgectl.oci.store import Repository, Store


@dataclass(frozen=True, slots=True)
class Access:
    """How to reach an HTTP registry; a layout directory needs none of it."""

    username: str | None = None
    password: str | None = None
    docker_config: Path | None = None
    """Docker `config.json` to find credentials in; None means the usual places."""
    ca_file: Path | None = None
    insecure: bool = False
    """Plain HTTP. TLS is on unless this is said."""
    timeout: float = 30.0
    """Seconds to connect, then for the whole head of an answer, then for each further piece."""
    slow_after: float = 60.0
    """Seconds at under 100 B/s before a transfer is given up."""


def open_store(location: RegistryLocation, access: Access | None = None) -> Store:
    """The store at a location; no request is made yet."""
    if location.is_layout:
        from edgectl.oci.layout import LayoutStore

        return LayoutStore(Path(location.base))
    from edgectl.oci.http import HttpStore

    return HttpStore(location, access or Access())


def open_directory(text: str) -> LayoutStore | None:
    """The registry directory that `oci-layout:DIR` names; None if it names something else.

    A directory that is itself one repository, an image layout, is something else.
    """
    if not text.startswith("oci-layout:"):
        return None
    directory = Path(text.removeprefix("oci-layout:"))
    if not directory.is_dir() or (directory / "oci-layout").exists():
        return None
    from edgectl.oci.layout import LayoutStore

    return LayoutStore(directory)


def open_artifact(text: str, access: Access | None = None) -> tuple[Repository, Descriptor]:
    """The repository that a reference names, and the manifest or index that it points at.

    Raises ConfigError if it is no reference, NotFoundError if nothing is there.
    """
    reference = Reference.parse(text)
    repository = open_store(reference.location, access).repository(reference.name)
    descriptor = repository.resolve(reference.target)
    if descriptor is None:
        layout = Path(reference.location.base) / reference.name
        there = not reference.location.is_layout or layout.is_dir()
        raise NotFoundError(
            f"there is no {reference}",
            hint=f"is the {'tag or digest' if there else 'directory'} right?",
        )
    return repository, descriptor
