"""What `agent status` says: read from the state directory, beside a running agent or without."""

from __future__ import annotations

from contextlib import closing
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from edgectl.agent.device import is_stale
from edgectl.agent.machine import State
from edgectl.agent.state import FILE, PollRecord, StateStore
from edgectl.errors import IntegrityError, StorageError
from edgectl.serve.slot import read_link, read_slot, slot_path

if TYPE_CHECKING:
    from edgectl.agent.config import DeviceConfig
    from edgectl.digest import Digest
    from edgectl.serve.slot import Link

_HISTORY = 20
_DAMAGED = "the state database cannot be read; the next poll makes it anew from the slots"


def status(config: DeviceConfig) -> dict[str, Any]:
    """The device's state as a JSON object; times are RFC 3339, digests `sha256:…`."""
    memory = StateStore.read(config.state)
    if memory is None:
        return _described(config, None)
    with closing(memory):
        return _described(config, memory)


def _described(config: DeviceConfig, memory: StateStore | None) -> dict[str, Any]:
    poll = PollRecord() if memory is None else memory.poll()
    operation, written = (None, str(State.IDLE)) if memory is None else memory.operation()
    return {
        "device": config.device,
        "fleet": config.fleet,
        "ring": poll.ring or None,
        "generation": poll.generation,
        "simulated": config.simulate,
        "state": written,
        "slot": _slot(config, "current"),
        "previous": _slot(config, "previous"),
        "stale": is_stale(poll),
        "expires": _time(poll.expires),
        "polled": _time(poll.polled),
        "attempts": poll.attempts,
        "nextAttempt": _time(poll.not_before),
        "error": poll.error or None,
        "problem": _DAMAGED if memory is None and (config.state / FILE).exists() else None,
        "updating": None if operation is None or written == State.IDLE else _text(operation.slot),
        "warmup": None if memory is None else memory.record("warmup"),
        "failed": [] if memory is None else [
            {"digest": str(failed.digest), "kind": failed.kind, "reason": failed.reason,
             "at": _time(failed.at)}
            for failed in memory.failed()
        ],
        "history": [] if memory is None else [
            {"at": _time(event.at), "state": event.state, "slot": _text(event.slot),
             "generation": event.generation, "message": event.message}
            for event in memory.history(_HISTORY)
        ],
    }  # fmt: skip


def _slot(config: DeviceConfig, link: Link) -> dict[str, Any] | None:
    """What a link leads to, with `error` where that is broken."""
    digest = None
    try:
        digest = read_link(config.state, link)
        models = () if digest is None else read_slot(slot_path(config.state, digest)).models
    except (StorageError, IntegrityError) as error:
        return {"digest": _text(digest), "models": [], "error": error.message}
    if digest is None:
        return None
    return {"digest": str(digest), "models": [model.to_json() for model in models]}


def _text(digest: Digest | None) -> str | None:
    return None if digest is None else str(digest)


def _time(seconds: float) -> str | None:
    if not seconds:
        return None
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
