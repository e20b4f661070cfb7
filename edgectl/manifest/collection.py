"""All manifests of a project, read and found right."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from edgectl.manifest.model import Model, version_order

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from edgectl.manifest.fleet import Fleet, ModelReference
    from edgectl.manifest.project import Project
    from edgectl.manifest.target import Target


@dataclass(frozen=True, slots=True)
class ManifestSet:
    """The manifests of one project. Every name that one of them says is in here."""

    root: Path
    """The project's directory."""
    project: Project
    models: Mapping[tuple[str, str], Model]
    """By name and version."""
    targets: Mapping[str, Target]
    """The repository's own, and the shipped profiles that its fleets name besides."""
    fleets: Mapping[str, Fleet]
    _newest: Mapping[str, str] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        versions: dict[str, list[str]] = {}
        for name, version in self.models:
            versions.setdefault(name, []).append(version)
        found = {name: newest(known) for name, known in versions.items()}
        object.__setattr__(self, "_newest", found)

    def model(self, reference: ModelReference) -> Model:
        """The model that a fleet names: of its version, else the newest."""
        version = reference.version or self._newest[reference.name]
        return self.models[reference.name, version]


def newest(versions: Iterable[str]) -> str:
    """The newest of versions, of which there is at least one."""
    return max(versions, key=version_order)
