"""The plan: Desired compared with Observed, a pure function."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

from edgectl.digest import Digest
from edgectl.errors import ManifestError
from edgectl.manifest.problem import suggest
from edgectl.plan.chain import ModelSteps, model_steps
from edgectl.plan.fingerprint import EDGECTL
from edgectl.plan.observed import ObservedModel
from edgectl.plan.rollout import assign, lagging
from edgectl.plan.step import Step, StepKind, make_step
from edgectl.trust.release import ModelRef

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from edgectl.desired import Desired, DesiredFleet, DesiredModel, ModelKey
    from edgectl.plan.observed import Applied, Observed
    from edgectl.trust.release import FleetRelease, Ring


_NOT_BUILT_YET = Digest("0" * 64)
"""Stands for the index of a model that apply builds first; never leaves this module."""


class Action(StrEnum):
    """What apply would do with a thing."""

    CREATE = "create"
    UPDATE = "update"
    UNCHANGED = "unchanged"
    BLOCKED = "blocked"


@dataclass(frozen=True, slots=True)
class Selection:
    """What `--model`, `--target` and `--fleet` leave of a plan; empty means everything."""

    models: frozenset[str] = frozenset()
    targets: frozenset[str] = frozenset()
    fleets: frozenset[str] = frozenset()

    def takes(self, model: DesiredModel) -> bool:
        """Whether any of a model's variants is selected."""
        names = {variant.target.name for variant in model.variants}
        return (not self.models or model.name in self.models) and (
            not self.targets or not names.isdisjoint(self.targets)
        )

    def restricts(self, model: DesiredModel) -> bool:
        """Whether some of a model's variants are left out: then it is not complete."""
        return bool(self.targets) and any(
            variant.target.name not in self.targets for variant in model.variants
        )


@dataclass(frozen=True, slots=True)
class ModelChange:
    """What happens to one model version."""

    model: DesiredModel
    action: Action
    reasons: tuple[str, ...]
    """Why; of one that is left alone though its version is not complete, what is there."""
    steps: ModelSteps | None = None
    """Set where something is to do."""
    run: tuple[Step, ...] = ()
    """The steps that apply looks at: those without a cached result, and those before them."""
    cached: frozenset[str] = frozenset()
    """Keys of steps in `run` whose results are in the registry."""
    applied: Applied | None = None
    """The record that the registry has, where nothing is to do."""

    @property
    def index(self) -> Digest | None:
        """The index that the registry has, where nothing is to do."""
        return self.applied.index if self.applied else None


@dataclass(frozen=True, slots=True)
class FleetChange:
    """What happens to one fleet's release."""

    fleet: DesiredFleet
    action: Action
    reasons: tuple[str, ...]
    release: FleetRelease | None
    """The release that is current."""
    step: Step | None = None
    pending: tuple[ModelKey, ...] = ()
    """Models whose digests are known only after they are built."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that apply would do; apply does nothing else."""

    models: tuple[ModelChange, ...]
    fleets: tuple[FleetChange, ...]

    selection: Selection = field(default_factory=Selection)
    """What it was made of."""

    @property
    def changed(self) -> bool:
        """Whether apply would change anything."""
        actions = [model.action for model in self.models] + [fleet.action for fleet in self.fleets]
        return any(action in {Action.CREATE, Action.UPDATE} for action in actions)


def make_plan(desired: Desired, observed: Observed, selection: Selection | None = None) -> Plan:
    """Compare. Raises ManifestError where no builder takes a model's format or target's engine."""
    selection = selection or Selection()
    _check_selection(desired, selection)
    fleets = [f for f in desired.fleets if not selection.fleets or f.name in selection.fleets]
    wanted = {key for fleet in fleets for key in fleet.models}
    changes = []
    for model in desired.models:
        if selection.fleets and model.key not in wanted:
            continue
        if not selection.takes(model):
            continue
        changes.append(
            _model_change(
                model, desired, observed.models.get(model.key, ObservedModel()), selection
            )
        )
    by_key = {change.model.key: change for change in changes}
    return Plan(
        tuple(changes),
        tuple(_fleet_change(fleet, by_key, observed, selection) for fleet in fleets),
        selection,
    )


def _check_selection(desired: Desired, selection: Selection) -> None:
    known = {
        "model": (selection.models, {model.name for model in desired.models}),
        "target": (
            selection.targets,
            {variant.target.name for model in desired.models for variant in model.variants},
        ),
        "fleet": (selection.fleets, {fleet.name for fleet in desired.fleets}),
    }
    for kind, (chosen, names) in known.items():
        for name in sorted(chosen - names):
            raise ManifestError(
                f"no fleet uses a {kind} {name!r}" if kind != "fleet" else f"no fleet {name!r}",
                hint=suggest(name, names),
            )


def _model_change(
    model: DesiredModel, desired: Desired, observed: ObservedModel, selection: Selection
) -> ModelChange:
    steps = model_steps(model, desired)
    applied = observed.applied
    if applied is not None and applied.key == steps.sign.key and observed.intact:
        return ModelChange(model, Action.UNCHANGED, (), applied=applied)
    action = Action.CREATE if applied is None else Action.UPDATE
    reasons: tuple[str, ...] = ("not in the registry",)
    if applied is not None:
        reasons = _reasons(applied.inputs, steps.sign.params["inputs"])
        if not observed.intact:
            reasons = (*reasons, "the registry's tags were moved by something else")
        if not reasons and applied.is_partial:
            reasons = ("not every variant passed in the apply before",)
        reasons = reasons or (f"{EDGECTL} changed",)
    restricted = selection.restricts(model)
    run = _restrict(steps, selection.targets) if restricted else steps.steps
    cached = frozenset(step.key for step in run if step.key in observed.cached)
    if restricted and len(cached) == len(run):
        there = ", ".join(
            each.target.name for each in model.variants if each.target.name in selection.targets
        )
        return ModelChange(model, Action.UNCHANGED, (f"built for {there}, and not for all yet",))
    return ModelChange(model, action, reasons, steps, run, cached)


def _restrict(steps: ModelSteps, targets: Collection[str]) -> tuple[Step, ...]:
    """The steps up to the packages of some targets: an index needs all of them."""
    wanted = {
        step.key
        for variant in steps.variants
        if variant.target in targets
        for step in (*variant.built, variant.evaluate, variant.package)
        if step is not None
    }
    wanted |= {step.key for step in (steps.imported, steps.baseline) if step is not None}
    return tuple(step for step in steps.steps if step.key in wanted)


def _reasons(old: Mapping[str, str], new: Mapping[str, str]) -> tuple[str, ...]:
    """What changed, was added or is gone; an older edgectl had other names for some of it."""
    changed = [f"{name} changed" for name in new if old.get(name, new[name]) != new[name]]
    if EDGECTL not in old:
        return (*changed, f"{EDGECTL} changed")
    added = [f"{name} added" for name in new if name not in old]
    removed = [f"{name} removed" for name in old if name not in new]
    return (*changed, *added, *removed)


def _fleet_change(
    fleet: DesiredFleet,
    models: Mapping[ModelKey, ModelChange],
    observed: Observed,
    selection: Selection,
) -> FleetChange:
    release = observed.releases.get(fleet.name)
    missing = [key for key in fleet.models if key not in models]
    pending = tuple(key for key in fleet.models if key in models and models[key].index is None)
    partial = [key for key in pending if selection.restricts(models[key].model)]
    if missing or partial:
        left_out = ", ".join(":".join(key) for key in missing)
        if not missing:
            left_out = f"other targets of {', '.join(':'.join(key) for key in partial)}"
        reasons: tuple[str, ...] = (
            f"the selection leaves out {left_out}, and fleets are released whole",
        )
        idle = all(change.action is Action.UNCHANGED for change in models.values())
        is_good = idle or (not pending and _runs(release, fleet))
        if is_good:
            return FleetChange(fleet, Action.UNCHANGED, reasons, release)
        reasons += (f"to release it, select it whole: --fleet {fleet.name}",)
        return FleetChange(fleet, Action.BLOCKED, reasons, release)
    return _compare_release(fleet, models, release, pending)


def _compare_release(
    fleet: DesiredFleet,
    models: Mapping[ModelKey, ModelChange],
    release: FleetRelease | None,
    pending: tuple[ModelKey, ...],
) -> FleetChange:
    wanted = [
        model_ref(models[key].model, models[key].index or _NOT_BUILT_YET) for key in fleet.models
    ]
    step = _release_step(fleet, models)
    first = tuple(f"{':'.join(key)} is built first" for key in pending)
    if release is None:
        reasons = ("first release, to every ring", *first)
        return FleetChange(fleet, Action.CREATE, reasons, None, step, pending)
    assignment = assign(fleet, wanted, release)
    notes = [
        f"{ref.name}:{ref.version} is held back: it was rolled back; edgectl rollout resume "
        f"{fleet.name} lets it go again"
        for ref in assignment.held_back
    ]
    if assignment.rings == release.rings and fleet.selector == release.selector:
        behind = lagging(release)
        if behind is not None:
            notes.append(f"ring {behind.name} lags; edgectl rollout advance {fleet.name} goes on")
        return FleetChange(fleet, Action.UNCHANGED, tuple(notes), release)
    reasons = ()
    if fleet.selector != release.selector:
        reasons += ("selector changed",)
    if assignment.rings != release.rings:
        reasons += _differences(release, assignment.rings)
    return FleetChange(fleet, Action.UPDATE, (*reasons, *first, *notes), release, step, pending)


def _differences(release: FleetRelease, rings: Sequence[Ring]) -> tuple[str, ...]:
    """What changes from ring to ring, in words."""
    before = {ring.name: ring for ring in release.rings}
    lines = []
    for ring in rings:
        old = before.pop(ring.name, None)
        if old is None:
            lines.append(f"ring {ring.name} added")
            continue
        versions = {model.name: model for model in old.models}
        for model in ring.models:
            past = versions.pop(model.name, None)
            if past is None:
                lines.append(f"ring {ring.name}: {model.name} {model.version} added")
            elif past.version != model.version:
                lines.append(f"ring {ring.name}: {model.name} {past.version} -> {model.version}")
            elif past.digest != model.digest:
                lines.append(f"ring {ring.name}: {model.name} {model.version} built anew")
        lines += [f"ring {ring.name}: {name} removed" for name in versions]
        if (old.selector, old.soak) != (ring.selector, ring.soak):
            lines.append(f"ring {ring.name}: settings changed")
    lines += [f"ring {name} removed" for name in before]
    return tuple(lines) or ("the order of the rings changed",)


def _runs(release: FleetRelease | None, fleet: DesiredFleet) -> bool:
    if release is None:
        return False
    running = {(model.name, model.version) for model in release.rings[0].models}
    return running == set(fleet.models)


def model_ref(model: DesiredModel, index: Digest) -> ModelRef:
    """How a release names a model."""
    return ModelRef(model.name, model.version, model.repository, index)


def _release_step(fleet: DesiredFleet, models: Mapping[ModelKey, ModelChange]) -> Step:
    uses: dict[str, Step] = {}
    for key in fleet.models:
        steps = models[key].steps
        if steps is None:
            continue
        uses["sign " + ":".join(key)] = steps.sign
        for variant in steps.variants:
            if variant.target in fleet.targets:
                uses[f"attest {':'.join(key)} {variant.target}"] = variant.attest
    return make_step(
        StepKind.RELEASE,
        f"release {fleet.name}",
        "trust",
        params={"fleet": fleet.name},
        uses=uses,
    )


def steps_of(plan: Plan) -> Iterable[Step]:
    """Every step of a plan, each once."""
    seen: dict[str, Step] = {}
    for change in plan.models:
        seen |= {step.key: step for step in change.run}
    for fleet in plan.fleets:
        if fleet.step is not None:
            seen[fleet.step.key] = fleet.step
    return seen.values()
