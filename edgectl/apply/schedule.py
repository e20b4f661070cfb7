"""Run steps in parallel, each after those it uses, and go on past failures."""

from __future__ import annotations

import os
from collections import defaultdict, deque
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from edgectl.errors import EdgectlError
from edgectl.plan.step import StepKind

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Collection, Iterable, Mapping

    from edgectl.apply.result import StepResult
    from edgectl.plan.step import Step

_TOLERANT = {StepKind.INDEX, StepKind.IMAGE}
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

    A step may be given more than once: versions of a model made from the same files share some.

    `execute` gets a step and the outcomes of the steps before it. Steps for which `alone` says so
    are run while nothing else is: what they measure is not disturbed. An exception that is not an
    EdgectlError, KeyboardInterrupt included, sets `cancel`, waits for the running steps, and is
    raised.
    """
    unique: dict[str, Step] = {}
    for step in steps:
        unique.setdefault(step.key, step)
    schedule = _Schedule(tuple(unique.values()), alone)
    jobs = jobs or os.cpu_count() or 1
    with ThreadPoolExecutor(jobs) as pool:
        running: dict[Future[StepResult], Step] = {}
        try:
            while True:
                for step in schedule.start(running.values(), jobs):
                    running[pool.submit(execute, step, schedule.outcomes)] = step
                if not running:
                    break
                finished, _ = wait(running, return_when=FIRST_COMPLETED)
                for future in finished:
                    for outcome in schedule.end(_outcome(running.pop(future), future)):
                        on_outcome(outcome)
        except BaseException:
            cancel.set()
            pool.shutdown(cancel_futures=True)
            raise
    return schedule.outcomes


class _Schedule:
    """Which steps may start: those whose inputs are all there, or lost."""

    def __init__(self, steps: tuple[Step, ...], alone: Callable[[Step], bool]) -> None:
        keys = frozenset(step.key for step in steps)
        self.outcomes: dict[str, Outcome] = {}
        self._alone = alone
        self._able: deque[Step] = deque()
        self._able_alone: deque[Step] = deque()
        self._missing = {step.key: len(keys.intersection(step.uses.values())) for step in steps}
        """Number of inputs that are still to come."""
        self._users: defaultdict[str, list[Step]] = defaultdict(list)
        for step in steps:
            for use in set(step.uses.values()):
                self._users[use].append(step)
            if not self._missing[step.key]:
                self._admit(step)

    def start(self, running: Collection[Step], jobs: int) -> list[Step]:
        """Take out the steps that may start now, beside those that run."""
        if any(self._alone(step) for step in running):
            return []
        if self._able_alone and not self._able and not running:
            return [self._able_alone.popleft()]
        return [self._able.popleft() for _ in range(min(jobs - len(running), len(self._able)))]

    def _admit(self, step: Step) -> None:
        (self._able_alone if self._alone(step) else self._able).append(step)

    def end(self, outcome: Outcome) -> list[Outcome]:
        """Note how a step ended; returns that, and those of the steps that can run no longer."""
        ended = [outcome]
        for each in ended:  # which grows meanwhile
            self.outcomes[each.step.key] = each
            for user in self._users[each.step.key]:
                self._missing[user.key] -= 1
                if self._missing[user.key]:
                    continue
                blocker = self._blocker(user)
                if blocker is None:
                    self._admit(user)
                else:
                    ended.append(Outcome(user, State.BLOCKED, blocked_by=blocker))
        return ended

    def _blocker(self, step: Step) -> str | None:
        """The lost input without which a step cannot run."""
        uses = step.uses
        needed = list(uses.values())
        if step.kind is StepKind.SIGN:  # without an attestation there is still what it signs
            needed = [uses["index"], uses["image"]]
        lost = [
            key
            for key in needed
            if key in self.outcomes and self.outcomes[key].state is not State.DONE
        ]
        if step.kind in _TOLERANT and len(lost) < len(needed):
            return None
        return lost[0] if lost else None


def _outcome(step: Step, future: Future[StepResult]) -> Outcome:
    try:
        return Outcome(step, State.DONE, result=future.result())
    except EdgectlError as error:
        return Outcome(step, State.FAILED, error=error)
