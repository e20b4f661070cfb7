"""What a failure means for what comes next: remember, wait for something else, or try again."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from edgectl.agent import backoff
from edgectl.errors import EdgectlError, HealthError, IncompatibleError, Retry

if TYPE_CHECKING:
    from edgectl.agent.state import PollRecord

CRASHES_ALLOWED = 3
"""Crashes while one slot is tried, before it is taken for the cause."""


class RememberedError(HealthError):
    """The release asks for something that failed on this device before."""

    code = "failed-before"


class InterruptedUpdateError(EdgectlError):
    """A new slot could not be tried to the end: the agent was killed or stopped, the device lost
    power, or it can start no other process now."""

    code = "interrupted"
    retry = Retry.BACKOFF


class SupersededError(EdgectlError):
    """The operator released something else while a new slot was on probation."""

    code = "superseded"
    retry = Retry.BACKOFF


SETTLED: dict[str, type[EdgectlError]] = {
    error.code: error for error in (HealthError, RememberedError, IncompatibleError)
}
"""Failures that the same release on the same device would only repeat, by code. All others may
pass: a blob that is missing or damaged today may be there tomorrow."""


def to_text(error: EdgectlError) -> str:
    """A failure as it is persisted with the operation."""
    value = {"code": error.code, "message": error.message, "hint": error.hint or ""}
    if error.retry_after is not None:
        value["retryAfter"] = str(error.retry_after)
    return json.dumps(value)


def from_text(text: str) -> dict[str, str]:
    """What `to_text` wrote; empty if there was no failure. Raises ValueError if it is damaged."""
    value: dict[str, Any] = json.loads(text) if text else {}
    if "retryAfter" in value:
        float(value["retryAfter"])
    return {str(key): str(item) for key, item in value.items()}


def refusal(poll: PollRecord) -> EdgectlError | None:
    """Why this device does not run what the release asks for, if that is settled."""
    kind = SETTLED.get(poll.refusal.get("code", ""))
    if kind is None:
        return None
    return kind(poll.refusal.get("message", ""), hint=poll.refusal.get("hint") or None)


def after_failure(poll: PollRecord, error: dict[str, str], settles: str, now: float) -> PollRecord:
    """The poll record after a failure: settled, or to be tried again after a growing delay."""
    kept = {key: error.get(key, "") for key in ("code", "message", "hint")}
    if error.get("code") in SETTLED:
        return replace(
            poll, settled=settles, attempts=0, not_before=0.0, error=kept, refusal=kept, polled=now
        )
    attempts = poll.attempts + 1
    asked = error.get("retryAfter")
    wait = backoff.delay(
        attempts,
        random.random(),  # noqa: S311 - jitter, not a secret
        retry_after=float(asked) if asked else None,
    )
    return replace(poll, attempts=attempts, not_before=now + wait, error=kept)


def after_success(poll: PollRecord, settles: str, now: float) -> PollRecord:
    """The poll record when the device runs what the release asks for."""
    return replace(
        poll, settled=settles, attempts=0, not_before=0.0, error={}, refusal={}, polled=now
    )


def after_nothing(poll: PollRecord, now: float) -> PollRecord:
    """The poll record when the release is the one that was settled before, well or not."""
    return replace(poll, attempts=0, not_before=0.0, error=poll.refusal, polled=now)
