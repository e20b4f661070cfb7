"""What the registry holds of a project: versions, releases, and how long they are good for."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from edgectl.plan.rollout import lagging

if TYPE_CHECKING:
    from edgectl.apply.workspace import Workspace
    from edgectl.digest import Digest
    from edgectl.trust.release import FleetRelease


@dataclass(frozen=True, slots=True)
class ModelStatus:
    """One model version of the manifests."""

    name: str
    version: str
    index: Digest | None
    """None if it is not in the registry."""
    targets: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class FleetStatus:
    """One fleet, of the manifests or of an earlier release."""

    name: str
    release: FleetRelease | None
    wanted: bool
    """Whether the manifests name it. One that they no longer do keeps its last release."""

    @property
    def lagging(self) -> str | None:
        """The first ring that waits for `rollout advance`."""
        ring = lagging(self.release) if self.release else None
        return ring.name if ring else None


@dataclass(frozen=True, slots=True)
class Status:
    """Everything."""

    registry: str
    expires: datetime | None
    """When the release metadata stops being fresh; None before the first release."""
    models: tuple[ModelStatus, ...]
    fleets: tuple[FleetStatus, ...]

    @property
    def expired(self) -> bool:
        """Whether devices call the metadata stale."""
        return self.expires is not None and self.expires <= datetime.now(UTC)

    def to_json(self) -> dict[str, Any]:
        """For machines."""
        return {
            "registry": self.registry,
            "expires": self.expires.isoformat() if self.expires else None,
            "expired": self.expired,
            "models": [
                {
                    "name": model.name,
                    "version": model.version,
                    "index": str(model.index) if model.index else None,
                    "targets": list(model.targets),
                }
                for model in self.models
            ],
            "fleets": [
                {
                    "name": fleet.name,
                    "wanted": fleet.wanted,
                    "lagging": fleet.lagging,
                    "release": json.loads(fleet.release.to_bytes()) if fleet.release else None,
                }
                for fleet in self.fleets
            ],
        }


def read_status(workspace: Workspace) -> Status:
    """Read the status; raises the store's and TUF's errors."""
    desired = workspace.desired()
    observed = workspace.observe(desired)
    wanted = {fleet.name for fleet in desired.fleets}
    return Status(
        str(workspace.store.location),
        workspace.expires(),
        tuple(
            ModelStatus(
                model.name,
                model.version,
                observed.models[model.key].index,
                tuple(variant.target.name for variant in model.variants),
            )
            for model in desired.models
        ),
        tuple(
            FleetStatus(name, observed.releases.get(name), name in wanted)
            for name in sorted(wanted | observed.releases.keys())
        ),
    )
