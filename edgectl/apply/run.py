"""Apply a plan: build what is missing, publish what passed, release what is complete."""

from __future__ import annotations

import tempfile
import threading
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from edgectl.apply.events import Events
from edgectl.apply.execute import Executor
from edgectl.apply.inputs import Inputs
from edgectl.apply.measured import Measurement, measurements
from edgectl.apply.release import publish_release, require_signed
from edgectl.apply.schedule import State, run_steps
from edgectl.build.card import require_renderer
from edgectl.engine.host import host_architecture
from edgectl.errors import (
    EdgectlError,
    ModelError,
    RegistryDeniedError,
    RegistryUnavailableError,
    StorageError,
    StorageFullError,
    ToolchainError,
)
from edgectl.plan.compare import Action, model_ref, steps_of
from edgectl.plan.step import StepKind

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping

    from edgectl.apply.schedule import Outcome
    from edgectl.apply.workspace import Workspace
    from edgectl.digest import Digest
    from edgectl.plan.compare import FleetChange, ModelChange, Plan
    from edgectl.plan.step import Step
    from edgectl.trust.release import FleetRelease, Ring


_OF_THE_MACHINE = (RegistryUnavailableError, RegistryDeniedError, StorageError, StorageFullError)
"""Errors that every step meets which comes after the first."""
_SHOWN = 3
"""Most steps that a fleet is said to lack; each is told with its error."""


@dataclass(frozen=True, slots=True)
class Failure:
    """One step that failed, or several that met the same fault."""

    step: Step
    error: EdgectlError
    also: tuple[Step, ...] = ()
    """Later steps that the same fault stopped, of a model, a toolchain, a registry or a disk."""


@dataclass(slots=True)
class Report:
    """How an apply ended."""

    ran: int = 0
    cached: int = 0
    measured: list[Measurement] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    releases: list[FleetRelease] = field(default_factory=list)
    withheld: dict[str, str] = field(default_factory=dict)
    """Fleet to why it was not released."""

    def raise_failure(self) -> None:
        """Raise the first failure, which then decides the exit code; return if there is none."""
        if self.failures:
            raise self.failures[0].error


class Applier:
    """Runs one plan."""

    def __init__(
        self,
        workspace: Workspace,
        plan: Plan,
        password: bytes,
        *,
        jobs: int | None = None,
        events: Events | None = None,
    ) -> None:
        """Opens the keys, so that a wrong password stops an apply before it builds anything.

        Raises KeyFileError, TrustError without a release repository, and ToolchainError where
        something is to be packaged that could not be.
        """
        if any(step.key not in change.cached for change in plan.models for step in change.run):
            require_renderer()
        self._workspace = workspace
        self._plan = plan
        self._jobs = jobs
        self._events = events or Events()
        self._key = workspace.private_key(password)
        self._accepted = workspace.public_keys()
        self._trust = workspace.trust(password)

    def run(self) -> Report:
        """Run every step, then release every fleet whose models are complete."""
        report = Report()
        cancel = threading.Event()
        with tempfile.TemporaryDirectory(prefix="edgectl-apply-") as work:
            executor = Executor(
                self._workspace.store,
                self._workspace.root,
                self._key,
                self._accepted,
                inputs=Inputs(
                    Path(work),
                    self._workspace.store.location,
                    self._workspace.access,
                    cancel=cancel,
                ),
                work=Path(work),
                events=self._events,
                cancel=cancel,
                latency_limits=latency_limits(self._plan),
                step_timeout=self._workspace.manifests.project.spec.build.step_timeout,
            )
            outcomes = run_steps(
                [step for change in self._plan.models for step in change.run],
                executor,
                jobs=self._jobs,
                alone=_measures_latency,
                cancel=cancel,
                on_outcome=lambda outcome: self._tell(outcome, executor),
            )
        report.failures = self._failures(outcomes)
        report.measured = measurements(outcomes)
        report.cached = len(executor.hits)
        done = sum(outcome.state is State.DONE for outcome in outcomes.values())
        report.ran = done - report.cached
        for fleet in self._plan.fleets:
            self._release(fleet, outcomes, report)
        return report

    def _failures(self, outcomes: Mapping[str, Outcome]) -> list[Failure]:
        """In the plan's order, so that the first, whose exit code counts, is always the same."""
        found: dict[Hashable, Failure] = {}
        for step in steps_of(self._plan):
            error = outcomes[step.key].error if step.key in outcomes else None
            if error is None:
                continue
            fault = _fault(step, error)
            known = found.get(fault)
            found[fault] = (
                replace(known, also=(*known.also, step)) if known else Failure(step, error)
            )
        return list(found.values())

    def _release(
        self, change: FleetChange, outcomes: Mapping[str, Outcome], report: Report
    ) -> None:
        fleet = change.fleet
        if change.step is None:
            if change.action is Action.BLOCKED:
                report.withheld[fleet.name] = "; ".join(change.reasons)
            return
        lost = [key for key in change.step.uses.values() if outcomes[key].state is not State.DONE]
        if lost:
            causes = list(dict.fromkeys(_cause(key, outcomes) for key in lost))
            rest = f", and {len(causes) - _SHOWN} more" if len(causes) > _SHOWN else ""
            report.withheld[fleet.name] = f"it needs: {', '.join(causes[:_SHOWN])}{rest}"
            return
        self._events.on_start(change.step)
        try:
            release = self._publish(change, outcomes)
        except EdgectlError as error:
            report.failures.append(Failure(change.step, error))
            self._events.on_end(change.step, State.FAILED)
            return
        self._events.on_end(change.step, State.DONE)
        if release is not None:
            report.releases.append(release)

    def _publish(self, change: FleetChange, outcomes: Mapping[str, Outcome]) -> FleetRelease | None:
        released = {ref for ring in _rings(change) for ref in ring.models}
        models, indexes = {}, {}
        for model in self._plan.models:
            key = model.model.key
            if key not in change.fleet.models:
                continue
            applied = model.applied
            if applied is not None and model_ref(model.model, applied.index) not in released:
                require_signed(self._workspace.store, model.model, applied, self._accepted)
            models[key] = model.model
            indexes[key] = _index(model, outcomes)
        return publish_release(self._trust, change.fleet, models, indexes)

    def _tell(self, outcome: Outcome, executor: Executor) -> None:
        cached = outcome.step.key in executor.hits
        self._events.on_end(outcome.step, "cached" if cached else outcome.state)


def _measures_latency(step: Step) -> bool:
    """Whether a step's result is a time on this machine, which other work would falsify."""
    return step.kind is StepKind.EVALUATE and step.params.get("architecture") == host_architecture()


def latency_limits(plan: Plan) -> dict[str, float]:
    """What each evaluation has to stay under, in seconds, by its key: for every target that it is
    of."""
    limits: dict[str, float] = {}
    for step in steps_of(plan):
        if "evaluation" in step.uses and "latency" in step.params.get("limits", {}):
            key, limit = step.uses["evaluation"], float(step.params["limits"]["latency"])
            limits[key] = min(limit, limits.get(key, limit))
    return limits


def _fault(step: Step, error: EdgectlError) -> Hashable:
    """What steps share that meet the same."""
    if isinstance(error, ModelError):
        return step.model, error.fault
    if isinstance(error, _OF_THE_MACHINE):
        return error.code
    if isinstance(error, ToolchainError) and error.fault:
        return error.fault
    return error.code, error.message


def _rings(change: FleetChange) -> tuple[Ring, ...]:
    """What the fleet's current release, which is signed, gives to its rings."""
    return change.release.rings if change.release else ()


def _cause(key: str, outcomes: Mapping[str, Outcome]) -> str:
    """The title of the step that failed, of one that was blocked in the end by it."""
    outcome = outcomes[key]
    while outcome.blocked_by is not None:
        outcome = outcomes[outcome.blocked_by]
    return outcome.step.title


def _index(change: ModelChange, outcomes: Mapping[str, Outcome]) -> Digest:
    """The index of a model: just built, or found in the registry."""
    if change.steps is not None:
        result = outcomes[change.steps.index.key].result
        if result is not None:
            return result.manifest.digest
    if change.index is None:
        raise AssertionError(f"{change.model.key} was planned to be complete and is not")
    return change.index
