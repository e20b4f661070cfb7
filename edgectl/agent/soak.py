"""Probation of a new slot: what the server says about it, and what it gets right.

Checked while real traffic runs on it, and ended early by the first thing that is wrong.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgectl.agent.failure import CRASHES_ALLOWED
from edgectl.agent.stopping import pause
from edgectl.agent.warmup import UnhealthyModelError
from edgectl.errors import HealthError, ServerUnavailableError
from edgectl.quantity import format_seconds

if TYPE_CHECKING:
    from collections.abc import Callable
    from threading import Event

    from edgectl.agent.server import Server, SlotStatus
    from edgectl.digest import Digest
    from edgectl.trust.release import SoakSettings

_LOOK = 1.0
"""Seconds between looks at the server."""
_LEAST_REQUESTS = 20
"""An error rate over fewer requests than this does not end a soak early."""


@dataclass(frozen=True, slots=True)
class SoakReport:
    """What the probation saw."""

    requests: int
    errors: int


def await_slot(server: Server, slot: Digest, timeout: float, stop: Event) -> None:
    """Wait until the server answers from a slot.

    Raises HealthError if it cannot load it or takes too long, ServerUnavailableError if it does
    not answer at all.
    """
    deadline = time.monotonic() + timeout
    unavailable: ServerUnavailableError | None = None
    while True:
        try:
            status = server.status()
            unavailable = None
            if status.slot == slot.hex and status.state == "ready":
                return
            if status.wanted == slot.hex and status.state == "failed":
                raise HealthError(
                    f"the server cannot serve slot {slot.short}: {status.error}",
                    hint="release a version that loads; this one is not tried again here",
                )
        except ServerUnavailableError as error:
            unavailable = error
        if time.monotonic() > deadline:
            if unavailable is not None:
                raise unavailable
            raise HealthError(
                f"the server did not get slot {slot.short} ready in {format_seconds(timeout)}",
                hint="raise limits.switch in device.yaml if the device is only slow",
            )
        pause(min(0.1, timeout), stop)


def watch(
    server: Server,
    slot: Digest,
    settings: SoakSettings,
    *,
    patience: float,
    stop: Event,
    meanwhile: Callable[[], None] = lambda: None,
) -> SoakReport:
    """Watch the server for the soak's duration; raises HealthError at the first thing wrong.

    A server that goes away, as it does when it is upgraded, has `patience` seconds to serve the
    slot again, and then ServerUnavailableError is raised. One that keeps going away is taken to
    die of the slot. `meanwhile` is called between looks; what it raises ends the probation.
    """
    deadline = time.monotonic() + settings.duration
    absences, away_since = 0, None
    while True:
        now = time.monotonic()
        left = deadline - now
        try:
            status = _ask(server, slot)
            away_since = None
            _require_serving(status, slot)
            _require_error_rate(status, settings.max_error_rate, final=left <= 0)
            if left <= 0:
                return SoakReport(status.requests, status.errors)
        except ServerUnavailableError as error:
            if away_since is None:
                absences, away_since = absences + 1, now
            if absences >= CRASHES_ALLOWED:
                raise HealthError(f"the server went away {absences} times: {error}") from error
            if now - away_since > patience:
                raise
        meanwhile()
        pause(min(_LOOK, max(left, 0.05)), stop)


def _ask(server: Server, slot: Digest) -> SlotStatus:
    """The server's status; a server that is still loading the slot again is unavailable, too."""
    status = server.status()
    if status.state == "loading" and status.wanted == slot.hex:
        raise ServerUnavailableError(f"the server is loading slot {slot.short} again")
    return status


def require_accuracy(model: str, measured: float, settings: SoakSettings) -> None:
    """Hold an accuracy on labelled samples against the ring's minimum; raises if it is under."""
    least = settings.min_accuracy.get(model)
    if least is not None and measured < least:
        raise UnhealthyModelError(
            model,
            f"{model} gets {measured:.1%} of the labelled samples right on this device, "
            f"the ring asks for {least:.1%}",
            hint="release a version that is right; this one is not tried again here",
        )


def _require_serving(status: SlotStatus, slot: Digest) -> None:
    if status.slot != slot.hex or status.state != "ready":
        raise HealthError(
            f"the server is {status.state} with slot {(status.slot or 'none')[:12]} instead of "
            f"{slot.short}: {status.error or 'it gives no reason'}"
        )


def _require_error_rate(status: SlotStatus, most: float, *, final: bool) -> None:
    if not status.requests or not (final or status.requests >= _LEAST_REQUESTS):
        return
    rate = status.errors / status.requests
    if rate > most:
        raise HealthError(
            f"{status.errors} of {status.requests} requests failed ({rate:.1%}), "
            f"allowed are {most:.1%}"
        )
