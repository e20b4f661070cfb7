"""The state machine of an update: one table with every transition and every resume state.

Pure: it decides where to go, and `edgectl.agent.update` does the work. A state is persisted
before its work begins, so that the state found after a crash says what may have been half done.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class State(StrEnum):
    """Where an update is."""

    IDLE = "idle"
    CHECK = "check"
    RESOLVE = "resolve"
    DOWNLOAD = "download"
    VERIFY = "verify"
    STAGE = "stage"
    COMPILE = "compile"
    WARMUP = "warmup"
    SWITCH = "switch"
    SOAK = "soak"
    COMMIT = "commit"
    CLEANUP = "cleanup"
    ROLLBACK = "rollback"
    FAILED = "failed"


class Event(StrEnum):
    """How the work of a state ended."""

    DONE = "done"
    NOTHING = "nothing"
    """There is nothing to do: the release has not changed, or asks for what runs already."""
    FAILED = "failed"
    CRASHED = "crashed"
    """The agent was killed, or the power was cut, at any moment of the state's work."""


@dataclass(frozen=True, slots=True)
class Row:
    """Where one state leads."""

    done: State
    failed: State
    crashed: State
    nothing: State | None = None

    @property
    def is_probation(self) -> bool:
        """Whether the new slot may be serving without having proven itself."""
        return self.crashed is State.ROLLBACK


_S = State
TABLE: dict[State, Row] = {
    #                  done         failed       crashed      nothing to do
    _S.IDLE: Row(_S.CHECK, _S.IDLE, _S.IDLE),
    # Before the switch nothing that serves has changed: start again, keeping the blobs.
    _S.CHECK: Row(_S.RESOLVE, _S.FAILED, _S.IDLE, _S.IDLE),
    _S.RESOLVE: Row(_S.DOWNLOAD, _S.FAILED, _S.IDLE, _S.IDLE),
    _S.DOWNLOAD: Row(_S.VERIFY, _S.FAILED, _S.IDLE),
    _S.VERIFY: Row(_S.STAGE, _S.FAILED, _S.IDLE),
    _S.STAGE: Row(_S.COMPILE, _S.FAILED, _S.IDLE),
    _S.COMPILE: Row(_S.WARMUP, _S.FAILED, _S.IDLE),
    _S.WARMUP: Row(_S.SWITCH, _S.FAILED, _S.IDLE),
    # On probation: whatever goes wrong, the old slot comes back.
    _S.SWITCH: Row(_S.SOAK, _S.ROLLBACK, _S.ROLLBACK),
    _S.SOAK: Row(_S.COMMIT, _S.ROLLBACK, _S.ROLLBACK),
    # Proven: only forward, as often as it takes.
    _S.COMMIT: Row(_S.CLEANUP, _S.COMMIT, _S.COMMIT),
    _S.CLEANUP: Row(_S.IDLE, _S.CLEANUP, _S.CLEANUP),
    _S.ROLLBACK: Row(_S.FAILED, _S.ROLLBACK, _S.ROLLBACK),
    _S.FAILED: Row(_S.IDLE, _S.FAILED, _S.FAILED),
}


def next_state(state: State, event: Event) -> State:
    """The state that follows; raises ValueError where `NOTHING` is not an answer."""
    row = TABLE[state]
    match event:
        case Event.DONE:
            return row.done
        case Event.FAILED:
            return row.failed
        case Event.CRASHED:
            return row.crashed
        case Event.NOTHING:
            if row.nothing is None:
                raise ValueError(f"{state} always has something to do")
            return row.nothing


def resume_state(persisted: str) -> State:
    """Where to go on from a state found on disk.

    A state that this version does not know (an older agent after a newer one) rolls back: the old
    slot is the one thing that is known to have worked.
    """
    try:
        state = State(persisted)
    except ValueError:
        return State.ROLLBACK
    return TABLE[state].crashed
