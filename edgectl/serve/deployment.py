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
from dataclasses import dataclass, field
from datetime import UTC, datetime
from threading import Event, Thread
from typing import TYPE_CHECKING, Any, Literal

from edgectl.engine.errors import EngineError
from edgectl.errors import EdgectlError
from edgectl.serve.slot import model_path, read_link, read_slot, slot_path

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from edgectl.digest import Digest
    from edgectl.serve.model import ServedModel

State = Literal["empty", "loading", "ready", "failed"]
LoadModel = "Callable[[Path], ServedModel]"

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


class Deployment:
    """The published state: written by the watcher, read by the event loop."""

    def __init__(self, serving: Serving | None = None) -> None:
        self.serving = serving
        self.state: State = "ready" if serving else "empty"
        self.wanted: Digest | None = serving.slot if serving else None
        self.error: str | None = None

    def status(self) -> dict[str, Any]:
        """The answer of `GET /edgectl/v1/slot`."""
        serving = self.serving
        return {
            "slot": serving.slot.hex if serving and serving.slot else None,
            "state": self.state,
            "error": self.error,
            "wanted": self.wanted.hex if self.wanted else None,
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
        load_model: Callable[[Path], ServedModel],
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
        """One look at the link: load and publish what it wants, if that is not what is served."""
        deployment = self._deployment
        try:
            wanted = self._pinned or read_link(self._state, "current")
        except EdgectlError as error:
            deployment.state, deployment.error = "failed", error.message
            return
        serving = deployment.serving
        served = serving.slot if serving else None
        if wanted is None or wanted == served:
            deployment.wanted, deployment.error = wanted, None
            deployment.state = "ready" if serving else "empty"
            return
        if wanted != deployment.wanted:
            self._retry_at, self._retry_seconds = 0.0, _FIRST_RETRY_SECONDS
            deployment.wanted = wanted
        if time.monotonic() >= self._retry_at:
            self._switch(wanted)

    def _switch(self, wanted: Digest) -> None:
        deployment = self._deployment
        if deployment.state != "failed":
            deployment.state, deployment.error = "loading", None
        try:
            new = Serving(self._load(wanted), wanted)
        except (EdgectlError, EngineError, OSError, MemoryError) as error:
            self._retry_at = time.monotonic() + self._retry_seconds
            self._retry_seconds = min(2 * self._retry_seconds, _LAST_RETRY_SECONDS)
            deployment.error = str(error) or repr(error)
            deployment.state = "failed"
            _log.error("slot %s cannot be served: %s", wanted.short, deployment.error)
            return
        old = deployment.serving
        self._old = weakref.ref(old) if old else None
        deployment.serving = new
        deployment.state, deployment.error = "ready", None
        _log.info("serving slot %s", wanted.short)

    def _load(self, digest: Digest) -> dict[str, ServedModel]:
        slot = read_slot(slot_path(self._state, digest))
        if slot.digest != digest:
            raise EngineError(f"slot {digest.short} holds other models than its name says")
        models = {}
        for entry in slot.models:
            model = self._load_model(model_path(self._state, digest, entry.name))
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
