"""What each ring runs next: first release, new version, advance, rollback. All pure."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from edgectl.errors import ConfigError
from edgectl.trust.release import FleetRelease, Held, ModelRef, Ring

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from edgectl.desired import DesiredFleet


@dataclass(frozen=True, slots=True)
class Assignment:
    """What a fleet's rings are to run, and what is held back from them."""

    rings: tuple[Ring, ...]
    held_back: tuple[ModelRef, ...]
    """Wanted by the manifests, but rolled back by an operator before."""


def assign(
    fleet: DesiredFleet, wanted: Sequence[ModelRef], release: FleetRelease | None
) -> Assignment:
    """Give the wanted models to the first ring, or to every ring in a first release.

    The other rings keep what they run until `advance`. A ring that is new to the fleet starts
    with what the last ring of the current release runs.
    """
    if release is None:
        rings = tuple(Ring(r.name, r.selector, r.soak, tuple(wanted)) for r in fleet.rings)
        return Assignment(rings, ())
    current = {ring.name: ring.models for ring in release.rings}
    newcomer = release.rings[-1].models if release.rings else tuple(wanted)
    rejected = {(held.model, held.digest) for held in release.held}
    first = fleet.rings[0]
    running = {model.name: model for model in current.get(first.name, newcomer)}
    held_back = tuple(model for model in wanted if (model.name, model.digest) in rejected)
    head = tuple(
        running.get(model.name, model) if model in held_back else model for model in wanted
    )
    rings = tuple(
        Ring(
            ring.name,
            ring.selector,
            ring.soak,
            head if position == 0 else current.get(ring.name, newcomer),
        )
        for position, ring in enumerate(fleet.rings)
    )
    return Assignment(rings, held_back)


def lagging(release: FleetRelease) -> Ring | None:
    """The first ring that runs something else than the ring before it; None if all agree."""
    for before, ring in zip(release.rings, release.rings[1:], strict=False):
        if set(ring.models) != set(before.models):
            return ring
    return None


def advance(release: FleetRelease, *, everything: bool = False) -> FleetRelease:
    """Give the first lagging ring what the ring before it runs; with `everything`, all rings.

    Raises ConfigError if no ring lags.
    """
    behind = lagging(release)
    if behind is None:
        raise ConfigError(
            f"fleet {release.fleet}: every ring runs the same; there is nothing to advance",
            hint="change a model version in the manifests and run edgectl apply",
        )
    position = release.rings.index(behind)
    models = release.rings[position - 1].models
    rings = list(release.rings)
    last = len(rings) if everything else position + 1
    for at in range(position, last):
        rings[at] = replace(rings[at], models=models)
    names = ", ".join(ring.name for ring in rings[position:last])
    return replace(
        release,
        generation=release.generation + 1,
        rings=tuple(rings),
        reason=f"rollout advance to {names}",
    )


def rollback(
    release: FleetRelease, history: Iterable[FleetRelease], *, to: int | None = None
) -> FleetRelease:
    """A newer release that runs what an earlier generation ran.

    Without `to`, the newest generation whose rings ran something else. What is rolled back is
    held: `apply` does not release it again until `resume`. Raises ConfigError if there is no such
    generation.
    """
    goal = _earlier(release, history, to)
    models = {ring.name: ring.models for ring in goal.rings}
    fallback = goal.rings[-1].models
    rings = tuple(replace(ring, models=models.get(ring.name, fallback)) for ring in release.rings)
    kept = {model for ring in rings for model in ring.models}
    dropped = {model for ring in release.rings for model in ring.models} - kept
    reason = f"rollback to generation {goal.generation}"
    held = {
        (h.model, h.digest): h for h in release.held if h.digest not in {m.digest for m in kept}
    }
    for model in sorted(dropped, key=lambda model: (model.name, model.version)):
        held[model.name, model.digest] = Held(model.name, model.version, model.digest, reason)
    return replace(
        release,
        generation=release.generation + 1,
        rings=rings,
        held=tuple(held.values()),
        reason=reason,
    )


def resume(release: FleetRelease) -> FleetRelease:
    """Release every hold, so that the next apply may release those versions again.

    Raises ConfigError if nothing is held.
    """
    if not release.held:
        raise ConfigError(f"fleet {release.fleet}: nothing is held back")
    return replace(release, generation=release.generation + 1, held=(), reason="rollout resume")


def _earlier(
    release: FleetRelease, history: Iterable[FleetRelease], to: int | None
) -> FleetRelease:
    earlier = {past.generation: past for past in history if past.generation < release.generation}
    if to is not None:
        if to not in earlier:
            known = ", ".join(map(str, sorted(earlier))) or "none"
            raise ConfigError(
                f"fleet {release.fleet} has no earlier generation {to}",
                hint=f"earlier generations: {known}; see edgectl history {release.fleet}",
            )
        return earlier[to]
    now = _models_by_ring(release)
    for generation in sorted(earlier, reverse=True):
        if _models_by_ring(earlier[generation]) != now:
            return earlier[generation]
    raise ConfigError(
        f"fleet {release.fleet} has no earlier generation that ran other models",
        hint=f"see edgectl history {release.fleet}",
    )


def _models_by_ring(release: FleetRelease) -> dict[str, frozenset[ModelRef]]:
    return {ring.name: frozenset(ring.models) for ring in release.rings}
