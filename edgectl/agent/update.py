"""The shell around the state machine: persists each transition, does the work, goes on.

Whatever happens, the persisted state says what may be half done, and `recover` knows what to do
about it (`edgectl.agent.machine`).
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from edgectl.agent import failure, marks, trial
from edgectl.agent.device import is_stale
from edgectl.agent.machine import TABLE, Event, State, next_state, resume_state
from edgectl.agent.server import BusyServerError
from edgectl.agent.state import Failed, Operation
from edgectl.agent.stopping import Stopped
from edgectl.agent.warmup import UnhealthyModelError
from edgectl.agent.work import Work
from edgectl.errors import (
    EdgectlError,
    HealthError,
    ServerUnavailableError,
    StorageError,
    StorageFullError,
)
from edgectl.serve.slot import LINKS

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgectl.agent.device import Device
    from edgectl.agent.state import PollRecord
    from edgectl.digest import Digest

_log = logging.getLogger(__name__)

_TRIED = {State.COMPILE, State.WARMUP, State.SWITCH, State.SOAK}
"""States in which a new model runs, and may be what crashed."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a poll ended, when it did not raise."""

    result: str
    """`updated`, `up-to-date` or `unassigned` (no ring selects this device)."""
    slot: Digest | None
    """What serves now."""
    generation: int
    ring: str
    stale: bool
    """Whether the release metadata is past its expiry: the device goes on with what it runs."""


_MESSAGES = {
    State.RESOLVE: "the release asks for another slot",
    State.SWITCH: "switched, on probation",
    State.SOAK: "proved itself",
    State.ROLLBACK: "rolled back",
}
"""What the history says when a state's work is done."""


def adopt(device: Device, reason: str) -> None:
    """Start a new memory from what is on disk: what serves goes on serving, and what failed here
    stays ruled out.

    A slot that has not proven itself gives way to the one before it, as after any crash.
    """
    remember = marks.recall(device.config.state)
    current, previous = (device.slots.linked(link) for link in LINKS)
    if current is None or device.slots.is_committed(current) or previous in {None, current}:
        is_new = current is None and not remember
        message = "" if is_new else f"{reason}: goes on with what is on disk"
        device.memory.enter(Operation(slot=current), message=message, remember=remember)
        return
    error = failure.InterruptedUpdateError(f"{reason} while a new slot was on probation")
    device.memory.enter(
        Operation(State.ROLLBACK, slot=current, old=previous, error=failure.to_text(error)),
        message=error.message,
        remember=remember,
    )


class Update:
    """One poll of a device, from recovery to idle."""

    def __init__(self, device: Device) -> None:
        self._device = device
        self._memory = device.memory
        self._work = Work(device)
        self._operation = Operation()
        self._error: EdgectlError | None = None
        self._states: dict[State, Callable[[Operation], Operation | None]] = {
            State.CHECK: self._work.check,
            State.RESOLVE: self._work.resolve,
            State.DOWNLOAD: self._work.download,
            State.VERIFY: self._work.verify,
            State.STAGE: self._work.stage,
            State.COMPILE: self._work.compile,
            State.WARMUP: self._work.warmup,
            State.SWITCH: self._work.switch,
            State.SOAK: self._work.soak,
            State.COMMIT: self._work.commit,
            State.CLEANUP: partial(self._prune, self._work.cleanup),
            State.ROLLBACK: self._work.rollback,
            State.FAILED: partial(self._prune, self._work.failed),
        }

    def poll(self) -> Outcome:
        """Check for a release and follow it; raises what kept the device from it.

        A failure is raised after it was dealt with: the old slot serves, and the next attempt is
        scheduled or ruled out. Raises Stopped if the agent was asked to stop.
        """
        self.recover()
        before = self._device.slots.linked("current")
        self._enter(replace(Operation(), state=State.CHECK))
        self._drive()
        if self._error is not None:
            raise self._error
        poll = self._memory.poll()
        refusal = failure.refusal(poll)
        if refusal is not None:
            raise refusal
        return self._outcome(before, poll)

    def recover(self) -> None:
        """Deal with what an earlier agent left unfinished."""
        operation, written = self._memory.operation()
        state = resume_state(written)
        if written == State.IDLE:
            return
        _log.warning("recover state=%s resume=%s", written, state)
        remember: tuple[Failed, ...] = ()
        tried = written in _TRIED and trial.was_cut_short(self._device.config.state)
        if tried and operation.slot is not None:
            remember = self._blame_crashes(operation.slot)
            self._end_trial()  # counted, whether or not what follows can be persisted
        error = operation.error
        if state is State.ROLLBACK and not error:
            kind = HealthError if remember else failure.InterruptedUpdateError
            reason = f"the agent stopped in state {written}, before the new slot had proven itself"
            error = failure.to_text(kind(reason))
        self._enter(
            replace(operation, state=state, error=error),
            message=f"found in state {written}: goes on with {state}",
            remember=remember,
        )
        self._drive()
        self._error = None
        self._work.poll = self._memory.poll()

    def _drive(self) -> None:
        """Work from the persisted state until IDLE."""
        try:
            while self._operation.state is not State.IDLE:
                self._step()
            self._end_trial()
        except Stopped:
            self._stop()
            raise
        except (StorageError, StorageFullError):
            # The transition itself could not be persisted. What is on disk says "on probation",
            # which means rolling back after a restart; the device must not wait for that.
            self._end_early()
            raise

    def _step(self) -> None:
        state = self._operation.state
        started = time.monotonic()
        try:
            operation = self._states[state](self._operation)
        except EdgectlError as error:
            self._fail(state, error)
            return
        _log.info("state=%s seconds=%.2f", state, time.monotonic() - started)
        following = next_state(state, Event.NOTHING if operation is None else Event.DONE)
        if operation is not None and following is not State.IDLE:
            self._enter(replace(operation, state=following), message=_MESSAGES.get(state, ""))
        elif state is State.FAILED:
            self._give_up()
        else:
            self._finish()

    def _prune(
        self, work: Callable[[Operation], Operation | None], operation: Operation
    ) -> Operation | None:
        """Do work that only frees space: what cannot be removed must not keep a release away."""
        try:
            return work(operation)
        except EdgectlError as error:
            _log.warning("state=%s code=%s error=%s", operation.state, error.code, error.message)
            return operation

    def _fail(self, state: State, error: EdgectlError) -> None:
        """A state's work failed: go where the table says, remembering what must not come back."""
        following = next_state(state, Event.FAILED)
        _log.error("state=%s next=%s code=%s error=%s", state, following, error.code, error.message)
        if following is state:
            raise error  # only forward from here: the next poll does this state again
        self._error = error
        self._enter(
            replace(self._operation, state=following, error=failure.to_text(error)),
            message=error.message,
            remember=self._blame(error),
        )

    def _blame(self, error: EdgectlError) -> tuple[Failed, ...]:
        """What a failure rules out for ever: the slot, and the model if it is known."""
        operation = self._operation
        slot = operation.slot
        if slot is None:
            return ()
        if isinstance(error, BusyServerError):
            return ()  # it answers
        if isinstance(error, ServerUnavailableError) and TABLE[operation.state].is_probation:
            return self._blame_crashes(slot)  # the slot may be what kills the server
        if not isinstance(error, HealthError):
            return ()
        blamed = [Failed(slot, "slot", error.message)]
        if isinstance(error, UnhealthyModelError):
            manifest = self._work.culprit(error.model)
            if manifest is not None:
                blamed.append(Failed(manifest, "manifest", error.message))
        return tuple(blamed)

    def _blame_crashes(self, slot: Digest) -> tuple[Failed, ...]:
        crashes = self._memory.count_crash(slot)
        if crashes < failure.CRASHES_ALLOWED:
            return ()
        reason = f"the agent, the server or the device crashed {crashes} times while it was tried"
        return (Failed(slot, "slot", reason),)

    def _finish(self, message: str = "") -> None:
        """The device runs what the release asks for, or there is nothing new to do."""
        work, now = self._work, time.time()
        if work.unchanged:
            poll = failure.after_nothing(work.poll, now)
        else:
            poll = failure.after_success(work.poll, work.settles, now)
        self._enter(replace(self._operation, state=State.IDLE), message=message, poll=poll)

    def _give_up(self) -> None:
        """The update failed and is dealt with: note when, if ever, to try again."""
        error = failure.from_text(self._operation.error)
        poll = failure.after_failure(self._work.poll, error, self._work.settles, time.time())
        self._enter(replace(self._operation, state=State.IDLE), poll=poll)

    def _enter(
        self,
        operation: Operation,
        *,
        message: str = "",
        remember: tuple[Failed, ...] = (),
        poll: PollRecord | None = None,
    ) -> None:
        if operation.state in _TRIED:
            trial.begin(self._device.config.state)
        self._memory.enter(operation, message=message, remember=remember, poll=poll)
        self._operation = operation
        if remember:
            self._mark_failed()

    def _mark_failed(self) -> None:
        """Mark what failed beside the slots too. Without that it is still remembered, and what
        serves must not wait for a disk that is full."""
        try:
            marks.keep(self._device.config.state, self._memory.failed())
        except (StorageError, StorageFullError) as error:
            _log.warning("state=%s mark=%s", self._operation.state, error.message)

    def _stop(self) -> None:
        """Asked to stop: nothing is to blame, and what serves is what served before."""
        try:
            self._persist_stop(self._operation)
        except (StorageError, StorageFullError) as error:
            # What is on disk leads to the same after a restart; the device must not wait for that.
            _log.warning("state=%s stop=%s", self._operation.state, error.message)
        self._end_early()

    def _persist_stop(self, operation: Operation) -> None:
        if TABLE[operation.state].is_probation:
            error = failure.to_text(failure.InterruptedUpdateError("the agent was asked to stop"))
            self._enter(replace(operation, state=State.ROLLBACK, error=error), message="stopped")
        elif next_state(operation.state, Event.CRASHED) is State.IDLE:
            self._enter(Operation(), message=f"stopped in state {operation.state}")

    def _end_early(self) -> None:
        """End before the update has, whatever can be persisted about it: that is no crash, and the
        old slot serves again."""
        self._end_trial()
        if not TABLE[self._operation.state].is_probation:
            return
        try:
            self._work.rollback(self._operation)
        except (EdgectlError, Stopped) as error:
            _log.warning("state=%s restore=%s", self._operation.state, error)

    def _end_trial(self) -> None:
        """Note that the slot does not crash the agent. Without that it may be blamed for a crash
        too many, and what serves must not wait for a disk that refuses."""
        try:
            trial.end(self._device.config.state)
        except (StorageError, StorageFullError) as error:
            _log.warning("state=%s trial=%s", self._operation.state, error.message)

    def _outcome(self, before: Digest | None, poll: PollRecord) -> Outcome:
        current = self._device.slots.linked("current")
        result = "updated" if current != before else "up-to-date"
        return Outcome(
            "unassigned" if not poll.ring else result,
            current,
            poll.generation,
            poll.ring,
            is_stale(poll),
        )
