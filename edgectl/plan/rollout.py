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
    wanted = sorted(wanted, key=_by_name)
    if release is None:
        rings = tuple(Ring(r.name, r.selector, r.soak, tuple(wanted)) for r in fleet.rings)
        return Assignment(rings, ())
    current = {ring.name: ring.models for ring in release.rings}
    newcomer = release.rings[-1].models if release.rings else tuple(wanted)
    first = fleet.rings[0]
    held_back, head = _with_holds(wanted, current.get(first.name, newcomer), release)
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


def _with_holds(
    wanted: Sequence[ModelRef], running: Sequence[ModelRef], release: FleetRelease
) -> tuple[tuple[ModelRef, ...], tuple[ModelRef, ...]]:
    """What of the wanted models is held back, and what the first ring runs then.

    In place of what is held back goes on what the ring runs of that model. Where it runs none, what
    it runs beside the wanted models may be what was rolled back to, so that goes on as well.
    """
    rejected = {(held.model, held.digest) for held in release.held}
    held_back = tuple(model for model in wanted if (model.name, model.digest) in rejected)
    named = {model.name: model for model in running}
    head = [named.get(m.name) if m in held_back else m for m in wanted]
    if None in head:
        head += [model for model in running if model.name not in {m.name for m in wanted}]
    return held_back, tuple(sorted((m for m in head if m is not None), key=_by_name))


def _by_name(model: ModelRef) -> str:
    return model.name


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

    Without `to`, the generation that the current state came after: a rollback after a rollback
    goes on back, and not to what was rolled back. What is rolled back is held: `apply` does not
    release it again until `resume`. Raises ConfigError if there is no such generation.
    """
    goal = _earlier(release, history, to)
    rings = _restored(release, goal)
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
        raise ConfigError(
            f"fleet {release.fleet}: nothing is held back",
            hint="see edgectl status; edgectl apply releases what the manifests name",
        )
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
    trail = _trail(release, earlier.values())
    if len(trail) < 2:
        raise ConfigError(
            f"fleet {release.fleet} has no earlier generation that ran other models",
            hint=f"see edgectl history {release.fleet}",
        )
    return trail[-2]


def _trail(release: FleetRelease, earlier: Iterable[FleetRelease]) -> list[FleetRelease]:
    """How the rings came to run what they run: generations of different models, oldest first.

    A generation that runs what an earlier one ran is a return to it: what lay between is left out.
    Generations count as what they would be in the rings that there are now.
    """
    trail: list[FleetRelease] = []
    states: list[list[frozenset[ModelRef]]] = []
    for past in (*sorted(earlier, key=lambda past: past.generation), release):
        state = [frozenset(ring.models) for ring in _restored(release, past)]
        if state in states:
            at = states.index(state)
            del trail[at + 1 :], states[at + 1 :]
        else:
            trail.append(past)
            states.append(state)
    return trail


def _restored(release: FleetRelease, past: FleetRelease) -> tuple[Ring, ...]:
    """The rings of a release with the models of a past one; the last one's where a ring is new."""
    models = {ring.name: ring.models for ring in past.rings}
    fallback = past.rings[-1].models
    return tuple(replace(ring, models=models.get(ring.name, fallback)) for ring in release.rings)
