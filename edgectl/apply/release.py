"""Release what a fleet is to run, once everything it needs is there and vouched for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgectl.errors import IntegrityError, SignatureError
from edgectl.plan.compare import model_ref
from edgectl.plan.observe import read_applied
from edgectl.plan.observed import applied_tag
from edgectl.plan.rollout import assign
from edgectl.trust import signature
from edgectl.trust.release import FleetRelease

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from edgectl.desired import DesiredFleet, DesiredModel, ModelKey
    from edgectl.digest import Digest
    from edgectl.oci.store import Store
    from edgectl.plan.observed import Applied
    from edgectl.trust.keys import PublicKey
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


def require_signed(
    store: Store, model: DesiredModel, applied: Applied, keys: Sequence[PublicKey]
) -> None:
    """Check that an accepted key signed the record that says a model version is complete.

    A plan believes the record. Whoever can push could have left one that names an older index,
    which devices would take: it is signed. Raises SignatureError or IntegrityError.
    """
    repository = store.repository(model.repository)
    tag = applied_tag(model.version)
    hint = f"who could write to the registry? delete the tag {tag}: the next apply makes it again"
    found = repository.resolve(tag)
    if found is None or read_applied(repository, str(found.digest)) != applied:
        raise IntegrityError(f"{repository.name}:{tag} changed since the plan was made", hint=hint)
    try:
        signature.verify(repository, found, keys)
    except SignatureError as error:
        raise SignatureError(f"{repository.name}:{tag}: {error.message}", hint=hint) from error
