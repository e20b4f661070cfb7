from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from edgectl.agent.machine import TABLE, Event, State, next_state, resume_state

if TYPE_CHECKING:
    from collections.abc import Callable

BEFORE_SWITCH = (
    State.CHECK,
    State.RESOLVE,
    State.DOWNLOAD,
    State.VERIFY,
    State.STAGE,
    State.COMPILE,
    State.WARMUP,
)


def test_every_state_has_a_row() -> None:
    assert set(TABLE) == set(State)


def test_the_way_of_an_update() -> None:
    way: list[State] = []
    state = State.IDLE
    while not way or state is not State.IDLE:
        state = next_state(state, Event.DONE)
        way.append(state)
    assert way == [
        *BEFORE_SWITCH,
        State.SWITCH,
        State.SOAK,
        State.COMMIT,
        State.CLEANUP,
        State.IDLE,
    ]


def test_crash_rules() -> None:
    assert {TABLE[state].crashed for state in (State.IDLE, *BEFORE_SWITCH)} == {State.IDLE}
    assert {TABLE[state].crashed for state in (State.SWITCH, State.SOAK)} == {State.ROLLBACK}
    for state in (State.COMMIT, State.CLEANUP, State.ROLLBACK, State.FAILED):
        assert TABLE[state].crashed is state


@given(st.text())
def test_an_unknown_state_rolls_back(text: str) -> None:
    if text not in set(State):
        assert resume_state(text) is State.ROLLBACK


def test_only_check_and_resolve_may_find_nothing() -> None:
    able = {state for state in State if TABLE[state].nothing is not None}
    assert able == {State.CHECK, State.RESOLVE}
    with pytest.raises(ValueError, match="soak"):
        next_state(State.SOAK, Event.NOTHING)


class Device(RuleBasedStateMachine):
    """A device whose work is killed or fails at any moment, before, during or after it took
    effect: it serves the old slot or the new one, and in the end the right one."""

    def __init__(self) -> None:
        super().__init__()
        self.state = State.IDLE
        self.serving = "old"
        self.proven = False

    def _act(self, state: State) -> None:
        acts: dict[State, Callable[[], None]] = {
            State.SWITCH: lambda: setattr(self, "serving", "new"),
            State.SOAK: lambda: setattr(self, "proven", True),
            State.ROLLBACK: lambda: setattr(self, "serving", "old"),
        }
        acts.get(state, lambda: None)()

    @rule(event=st.sampled_from([Event.DONE, Event.FAILED]))
    def work(self, event: Event) -> None:
        if event is Event.DONE:
            self._act(self.state)
        self._go(next_state(self.state, event))

    @precondition(lambda self: self.state is not State.SOAK)
    @rule()
    def fail_after_it_took_effect(self) -> None:
        self._act(self.state)
        self._go(next_state(self.state, Event.FAILED))

    @rule(took_effect=st.booleans())
    def crash(self, took_effect: bool) -> None:
        if took_effect:
            self._act(self.state)
        self._go(resume_state(self.state))

    def _go(self, state: State) -> None:
        if state is State.ROLLBACK:
            self.proven = False
        if state is State.CHECK:  # a new update begins; what serves is the old one now
            self.serving, self.proven = "old", False
        self.state = state

    @invariant()
    def serves_one_of_them(self) -> None:
        assert self.serving in {"old", "new"}
        if self.state in BEFORE_SWITCH or self.state is State.FAILED:
            assert self.serving == "old"
        if self.state in {State.COMMIT, State.CLEANUP}:
            assert self.serving == "new"
            assert self.proven

    @invariant()
    def ends(self) -> None:
        state, steps = self.state, 0
        while state is not State.IDLE:
            state, steps = next_state(state, Event.DONE), steps + 1
            assert steps < len(State)


TestDevice = Device.TestCase
