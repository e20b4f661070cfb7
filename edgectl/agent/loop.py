"""Polling: once, or for ever with jitter."""

from __future__ import annotations

import logging
import random
import time
from typing import TYPE_CHECKING

from edgectl.agent import backoff
from edgectl.agent.device import open_device
from edgectl.agent.machine import State
from edgectl.agent.state import StateStore
from edgectl.agent.stopping import Stopped
from edgectl.agent.update import Outcome, Update, adopt
from edgectl.errors import EdgectlError

if TYPE_CHECKING:
    from collections.abc import Callable
    from threading import Event

    from edgectl.agent.config import DeviceConfig
    from edgectl.agent.device import Device
    from edgectl.agent.state import PollRecord

_log = logging.getLogger(__name__)


def poll_once(config: DeviceConfig, stop: Event, memory: type[StateStore] = StateStore) -> Outcome:
    """One poll and the update that it leads to; raises whatever kept the device from it.

    Somebody asked for it, so a delay that `run` would keep to is not kept to.
    """
    with open_device(config, stop, memory) as (device, lost):
        if lost is not None:
            adopt(device, lost)
        return Update(device).poll()


def run(config: DeviceConfig, stop: Event) -> None:
    """Poll until `stop` is set. Errors of one poll are logged, and the next one tries again.

    Raises BusyError if another agent is at work, and what `open_device` raises.
    """
    with open_device(config, stop) as (device, lost):
        if lost is not None:
            adopt(device, lost)
        unfinished = _attempt(device, Update.recover)
        delay = backoff.remaining(device.memory.poll().not_before, time.time())
        while True:
            uniform = random.random()  # noqa: S311 - jitter, not a secret
            if unfinished:  # a rollback, perhaps: that cannot wait for the next poll
                delay = backoff.delay(unfinished, uniform)
            if stop.wait(delay):
                break
            unfinished = _attempt(device, Update.poll, unfinished)
            delay = next_delay(config, device.memory.poll(), time.time(), uniform)
    _log.info("stopped")


def _attempt(device: Device, work: Callable[[Update], Outcome | None], unfinished: int = 0) -> int:
    """Do something, log how it ended, and count how often it ended with work left half done."""
    try:
        outcome = work(Update(device))
    except EdgectlError as error:
        _log.error("code=%s error=%s", error.code, error.message)
    except Stopped:
        return 0
    else:
        if outcome is not None:
            _report(outcome)
    _, state = device.memory.operation()
    return 0 if state == State.IDLE else unfinished + 1


def next_delay(config: DeviceConfig, poll: PollRecord, now: float, uniform: float) -> float:
    """Seconds until the next poll; `uniform` is a random number from 0 to 1.

    The interval, early or late by the jitter; or after a failure the remaining backoff, if that
    is sooner.
    """
    jittered = config.interval * (1 + config.jitter * (2 * uniform - 1))
    if poll.attempts == 0:
        return jittered
    return min(jittered, max(1.0, backoff.remaining(poll.not_before, now)))


def _report(outcome: Outcome) -> None:
    _log.info(
        "result=%s slot=%s generation=%d ring=%s stale=%s",
        outcome.result,
        "none" if outcome.slot is None else outcome.slot.short,
        outcome.generation,
        outcome.ring or "none",
        str(outcome.stale).lower(),
    )
