"""The scheduler: order, parallelism, failures, and stopping."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgectl.apply.result import StepResult
from edgectl.apply.schedule import Outcome, State, run_steps
from edgectl.errors import GateError
from edgectl.oci.descriptor import EMPTY_CONFIG
from edgectl.plan.step import Step, StepKind

if TYPE_CHECKING:
    from collections.abc import Mapping

RESULT = StepResult(EMPTY_CONFIG)


def step(key: str, *uses: str, kind: StepKind = StepKind.PACKAGE) -> Step:
    return Step(kind, key, f"step {key}", "models/x", uses={use: use for use in uses})


class Recorder:
    """Executes nothing; remembers what ran, and fails what it is told to fail."""

    def __init__(self, *failing: str) -> None:
        self.failing = failing
        self.order: list[str] = []
        self.running: set[str] = set()
        self.together: list[frozenset[str]] = []
        self._lock = threading.Lock()

    def __call__(self, step: Step, outcomes: Mapping[str, Outcome]) -> StepResult:
        with self._lock:
            self.running.add(step.key)
            self.together.append(frozenset(self.running))
        assert all(use in outcomes for use in step.uses.values())
        with self._lock:
            self.running.discard(step.key)
            self.order.append(step.key)
        if step.key in self.failing:
            raise GateError(f"{step.key} fails")
        return RESULT


def states(outcomes: Mapping[str, Outcome]) -> dict[str, str]:
    return {key: str(outcome.state) for key, outcome in outcomes.items()}


@settings(deadline=None, max_examples=50)
@given(st.data())
def test_every_step_runs_once_and_after_what_it_uses(data: st.DataObject) -> None:
    count = data.draw(st.integers(1, 12))
    steps = [
        step(
            str(at),
            *(
                str(use)
                for use in data.draw(st.sets(st.integers(0, at - 1)) if at else st.just(set()))
            ),
        )
        for at in range(count)
    ]
    again = data.draw(st.lists(st.sampled_from(steps)))
    recorder = Recorder()
    outcomes = run_steps([*again, *steps], recorder, jobs=3, cancel=threading.Event())
    assert sorted(recorder.order) == sorted(s.key for s in steps)
    for one in steps:
        assert all(recorder.order.index(use) < recorder.order.index(one.key) for use in one.uses)
    assert set(states(outcomes).values()) == {"done"}


def test_a_failure_blocks_what_needs_it_and_nothing_else() -> None:
    steps = [step("a"), step("b", "a"), step("c", "b"), step("d"), step("e", "d")]
    outcomes = run_steps(steps, Recorder("a"), jobs=2, cancel=threading.Event())
    assert states(outcomes) == {
        "a": "failed", "b": "blocked", "c": "blocked", "d": "done", "e": "done",
    }  # fmt: skip
    assert outcomes["b"].blocked_by == "a"
    assert outcomes["a"].error is not None


def test_an_index_goes_on_without_a_variant_that_failed() -> None:
    steps = [
        step("one"),
        step("two"),
        step("index", "one", "two", kind=StepKind.INDEX),
        step("image", "one", "two", kind=StepKind.IMAGE),
        step("sign", "index", "image", "two", kind=StepKind.SIGN),
    ]
    outcomes = run_steps(steps, Recorder("two"), cancel=threading.Event())
    assert states(outcomes) == {
        "one": "done", "two": "failed", "index": "done", "image": "done", "sign": "done",
    }  # fmt: skip


def test_an_index_of_no_variant_at_all_is_blocked_and_nothing_is_signed() -> None:
    steps = [
        step("one"),
        step("two"),
        step("index", "one", "two", kind=StepKind.INDEX),
        step("sign", "index", kind=StepKind.SIGN),
    ]
    steps[-1] = Step(
        StepKind.SIGN, "sign", "sign", "models/x", uses={"index": "index", "image": "two"}
    )
    outcomes = run_steps(steps, Recorder("one", "two"), cancel=threading.Event())
    assert states(outcomes)["index"] == "blocked"
    assert states(outcomes)["sign"] == "blocked"


def test_a_step_that_measures_runs_alone() -> None:
    recorder = Recorder()
    steps = [step(str(at)) for at in range(6)] + [step("x"), step("y", "0")]
    run_steps(
        steps, recorder, jobs=4, alone=lambda s: s.key in {"x", "y"}, cancel=threading.Event()
    )
    assert len(recorder.order) == len(steps)
    assert all(len(group) == 1 for group in recorder.together if group & {"x", "y"})


def test_an_interrupt_sets_cancel_and_is_raised() -> None:
    cancel = threading.Event()

    def execute(step: Step, outcomes: Mapping[str, Outcome]) -> StepResult:
        if step.key == "a":
            raise KeyboardInterrupt
        assert cancel.wait(30), "the other steps are told to stop"
        return RESULT

    with pytest.raises(KeyboardInterrupt):
        run_steps([step("a"), step("b")], execute, jobs=2, cancel=cancel)
    assert cancel.is_set()


def test_every_end_is_told() -> None:
    told: list[tuple[str, State]] = []
    run_steps(
        [step("a"), step("b", "a")],
        Recorder("a"),
        cancel=threading.Event(),
        on_outcome=lambda outcome: told.append((outcome.step.key, outcome.state)),
    )
    assert told == [("a", State.FAILED), ("b", State.BLOCKED)]
