"""What is being served, what is wanted, and the thread that brings the one to the other.

The event loop reads `Deployment.serving` once per request and keeps that reference until it has
answered, so replacing it is the whole switch: new requests see the new models, running ones finish
on the old, and the old models are freed when the last of them lets go.
"""

from __future__ import annotations

import ctypes
import gc
import logging
import time
import weakref
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from threading import Event, Thread
from typing import TYPE_CHECKING, Any, Literal

from edgectl.engine.errors import EngineError
from edgectl.errors import EdgectlError
from edgectl.serve.slot import compiled_cache, model_path, read_link, read_slot, slot_path

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from edgectl.digest import Digest
    from edgectl.serve.model import ServedModel

State = Literal["empty", "loading", "ready", "failed"]

_POLL_SECONDS = 0.1
_FIRST_RETRY_SECONDS = 5.0
_LAST_RETRY_SECONDS = 60.0

_log = logging.getLogger(__name__)


@dataclass(slots=True, weakref_slot=True, eq=False)
class Serving:
    """The models that answer together, and how they have done since they took over.

    The counters belong to the event loop's thread.
    """

    models: Mapping[str, ServedModel]
    slot: Digest | None = None
    """None when a model directory is served without a slot."""
    since: datetime = field(default_factory=lambda: datetime.now(UTC))
    requests: int = 0
    errors: int = 0
    """Requests that failed on the server's side (5xx)."""


@dataclass(frozen=True, slots=True)
class Goal:
    """What is to be served, and how far that has got: replaced as a whole, so that no reader ever
    takes one slot's failure for another's."""

    wanted: Digest | None = None
    state: State = "empty"
    error: str | None = None


class Deployment:
    """The published state: written by the watcher, read by the event loop."""

    def __init__(self, serving: Serving | None = None) -> None:
        self.serving = serving
        self.goal = Goal(serving.slot, "ready") if serving else Goal()

    def status(self) -> dict[str, Any]:
        """The answer of `GET /edgectl/v1/slot`."""
        serving, goal = self.serving, self.goal
        return {
            "slot": serving.slot.hex if serving and serving.slot else None,
            "state": goal.state,
            "error": goal.error,
            "wanted": goal.wanted.hex if goal.wanted else None,
            "since": serving.since.isoformat(timespec="milliseconds") if serving else None,
            "requests": serving.requests if serving else 0,
            "errors": serving.errors if serving else 0,
        }


class SlotWatcher:
    """Follows `<state>/current`, or loads the one slot that it is pinned to."""

    def __init__(
        self,
        state: Path,
        deployment: Deployment,
        load_model: Callable[..., ServedModel],
        *,
        pinned: Digest | None = None,
    ) -> None:
        self._state = state
        self._deployment = deployment
        self._load_model = load_model
        self._pinned = pinned
        self._stopped = Event()
        self._retry_at = 0.0
        self._retry_seconds = _FIRST_RETRY_SECONDS
        self._old: weakref.ref[Serving] | None = None
        self._thread = Thread(target=self._watch, name="slot-watcher", daemon=True)

    def start(self) -> None:
        """Start following, in a thread of its own."""
        self._thread.start()

    def stop(self) -> None:
        """Stop, once a load that is going on has ended."""
        self._stopped.set()
        self._thread.join()

    def check(self) -> None:
        """One look at the link: load and publish what it wants, if that is not what is served.

        Without a link nothing is to be served: a first install that failed must not go on.
        """
        deployment = self._deployment
        try:
            wanted = self._pinned or read_link(self._state, "current")
        except EdgectlError as error:
            deployment.goal = replace(deployment.goal, state="failed", error=error.message)
            return
        serving = deployment.serving
        if wanted is None:
            self._publish(None, Goal())
        elif serving is not None and wanted == serving.slot:
            deployment.goal = Goal(wanted, "ready")
        else:
            if wanted != deployment.goal.wanted:
                self._retry_at, self._retry_seconds = 0.0, _FIRST_RETRY_SECONDS
                deployment.goal = Goal(wanted, "loading")
            if time.monotonic() >= self._retry_at:
                self._switch(wanted)

    def _switch(self, wanted: Digest) -> None:
        try:
            new = Serving(self._load(wanted), wanted)
        except Exception as error:  # noqa: BLE001 - whatever a model breaks, the thread must live
            self._retry_at = time.monotonic() + self._retry_seconds
            self._retry_seconds = min(2 * self._retry_seconds, _LAST_RETRY_SECONDS)
            reason = str(error) or repr(error)
            self._deployment.goal = Goal(wanted, "failed", reason)
            _log.error("slot %s cannot be served: %s", wanted.short, reason)
            return
        self._publish(new, Goal(wanted, "ready"))
        _log.info("serving slot %s", wanted.short)

    def _publish(self, new: Serving | None, goal: Goal) -> None:
        """Serve something else from now on, or nothing."""
        old = self._deployment.serving
        if old is not None:
            self._old = weakref.ref(old)
        self._deployment.serving = new
        self._deployment.goal = goal

    def _load(self, digest: Digest) -> dict[str, ServedModel]:
        slot = read_slot(slot_path(self._state, digest))
        if slot.digest != digest:
            raise EngineError(f"slot {digest.short} holds other models than its name says")
        models = {}
        for entry in slot.models:
            model = self._load_model(
                model_path(self._state, digest, entry.name),
                cache=compiled_cache(self._state, entry.manifest),
            )
            if (model.name, model.version) != (entry.name, entry.version):
                raise EngineError(
                    f"slot {digest.short} says {entry.name} {entry.version}, but the model"
                    f" directory holds {model.name} {model.version}"
                )
            models[entry.name] = model
        return models

    def _watch(self) -> None:
        while not self._stopped.is_set():
            self.check()
            self._free_old()
            self._stopped.wait(_POLL_SECONDS)

    def _free_old(self) -> None:
        """Once the last request has let go of the old models, give their memory back."""
        if self._old is not None and self._old() is None:
            self._old = None
            gc.collect()
            return_free_memory()


def return_free_memory() -> None:
    """Hand freed heap pages to the system (glibc keeps them otherwise)."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
