"""Publish what a fleet is to run, once everything it needs is there."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgectl.plan.compare import model_ref
from edgectl.plan.rollout import assign
from edgectl.trust.release import FleetRelease

if TYPE_CHECKING:
    from collections.abc import Mapping

    from edgectl.desired import DesiredFleet, DesiredModel, ModelKey
    from edgectl.digest import Digest
    from edgectl.trust.repository import TrustRepository


def publish_release(
    trust: TrustRepository,
    fleet: DesiredFleet,
    models: Mapping[ModelKey, DesiredModel],
    indexes: Mapping[ModelKey, Digest],
) -> FleetRelease | None:
    """Publish the next release of a fleet; None if its current one says the same already."""
    current = trust.current().get(fleet.name)
    wanted = [model_ref(models[key], indexes[key]) for key in fleet.models]
    assignment = assign(fleet, wanted, current)
    if current and (current.rings, current.selector) == (assignment.rings, fleet.selector):
        return None
    release = FleetRelease(
        fleet.name,
        current.generation + 1 if current else 1,
        fleet.selector,
        assignment.rings,
        current.held if current else (),
        "apply",
    )
    trust.publish({fleet.name: release})
    return release
