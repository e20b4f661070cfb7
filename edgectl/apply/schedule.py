"""Run steps in parallel, each after those it uses, and go on past failures."""

from __future__ import annotations

import os
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from edgectl.errors import EdgectlError
from edgectl.plan.step import StepKind

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Iterable, Mapping

    from edgectl.apply.result import StepResult
    from edgectl.plan.step import Step

TOLERANT = {StepKind.INDEX, StepKind.IMAGE, StepKind.SIGN}
"""Kinds that go on with the inputs that are there: one bad variant does not stop the others."""


class State(StrEnum):
    """How a step ended."""

    DONE = "done"
    FAILED = "failed"
    BLOCKED = "blocked"


@dataclass(frozen=True, slots=True)
class Outcome:
    """The end of one step."""

    step: Step
    state: State
    result: StepResult | None = None
    error: EdgectlError | None = None
    blocked_by: str | None = None
    """Key of the failed step that this one needed."""


def run_steps(
    steps: Iterable[Step],
    execute: Callable[[Step, Mapping[str, Outcome]], StepResult],
    *,
    jobs: int | None = None,
    alone: Callable[[Step], bool] = lambda _: False,
    cancel: threading.Event,
    on_outcome: Callable[[Outcome], None] = lambda _: None,
) -> dict[str, Outcome]:
    """Run every step once, at most `jobs` at a time, and return outcomes by key.

    `execute` gets a step and the outcomes of the steps before it. Steps for which `alone` says so
    are run while nothing else is: what they measure is not disturbed. An exception that is not an
    EdgectlError, KeyboardInterrupt included, sets `cancel`, waits for the running steps, and is
    raised.
    """
    schedule = _Schedule(tuple(steps), alone)
    with ThreadPoolExecutor(jobs or os.cpu_count() or 1) as pool:
        running: dict[Future[StepResult], Step] = {}
        try:
            while schedule.waiting or running:
                for outcome in schedule.blocked():
                    on_outcome(outcome)
                for step in schedule.ready(running.values()):
                    running[pool.submit(execute, step, schedule.outcomes)] = step
                finished, _ = wait(running, return_when=FIRST_COMPLETED)
                for future in finished:
                    outcome = _outcome(running.pop(future), future)
                    schedule.outcomes[outcome.step.key] = outcome
                    on_outcome(outcome)
        except BaseException:
            cancel.set()
            pool.shutdown(cancel_futures=True)
            raise
    return schedule.outcomes


class _Schedule:
    """Which steps wait, and which of them may start."""

    def __init__(self, steps: tuple[Step, ...], alone: Callable[[Step], bool]) -> None:
        self.waiting = {step.key: step for step in steps}
        self._keys = frozenset(self.waiting)
        self.outcomes: dict[str, Outcome] = {}
        self._alone = alone

    def blocked(self) -> list[Outcome]:
        """Take out the steps that can no longer run."""
        found = []
        for key, step in list(self.waiting.items()):
            needs = [self.outcomes[use] for use in step.uses.values() if use in self.outcomes]
            failed = [need for need in needs if need.state is not State.DONE]
            if not failed or (step.kind in TOLERANT and not self._lost_all(step, failed)):
                continue
            outcome = Outcome(step, State.BLOCKED, blocked_by=failed[0].step.key)
            self.outcomes[key] = outcome
            del self.waiting[key]
            found.append(outcome)
        return found

    def ready(self, running: Iterable[Step]) -> list[Step]:
        """Take out the steps that may start now."""
        active = list(running)
        if any(self._alone(step) for step in active):
            return []
        able = [step for step in self.waiting.values() if self._has_inputs(step)]
        together = [step for step in able if not self._alone(step)]
        chosen = together if together or active else able[:1]
        for step in chosen:
            del self.waiting[step.key]
        return chosen

    def _has_inputs(self, step: Step) -> bool:
        return all(use in self.outcomes for use in step.uses.values() if use in self._keys)

    def _lost_all(self, step: Step, failed: list[Outcome]) -> bool:
        """A tolerant step still needs one of its inputs, and a signature needs the index."""
        lost = {outcome.step.key for outcome in failed}
        if step.kind is StepKind.SIGN:
            return step.uses["index"] in lost or step.uses["image"] in lost
        return lost >= set(step.uses.values())


def _outcome(step: Step, future: Future[StepResult]) -> Outcome:
    try:
        return Outcome(step, State.DONE, result=future.result())
    except EdgectlError as error:
        return Outcome(step, State.FAILED, error=error)
