"""Execute one step: look for its result, else make it, sign it and cache it."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from edgectl.apply.publish import PUBLISHERS
from edgectl.apply.result import load_result, save_result
from edgectl.build.builder import find_builder
from edgectl.build.runner import Request, run
from edgectl.engine.host import host_architecture
from edgectl.errors import SignatureError
from edgectl.plan.step import StepKind
from edgectl.trust import signature

if TYPE_CHECKING:
    import threading
    from collections.abc import Mapping

    from edgectl.apply.events import Events
    from edgectl.apply.inputs import Inputs
    from edgectl.apply.result import StepResult
    from edgectl.apply.schedule import Outcome
    from edgectl.oci.store import Repository, Store
    from edgectl.plan.step import Step
    from edgectl.trust.keys import PrivateKey, PublicKey

BUILT = {StepKind.IMPORT, StepKind.OPTIMIZE, StepKind.EVALUATE}
"""Kinds that a builder runs."""


class Executor:
    """Executes the build and publish steps of a plan; several threads may call it."""

    def __init__(
        self,
        store: Store,
        root: Path,
        key: PrivateKey,
        accepted: tuple[PublicKey, ...],
        *,
        inputs: Inputs,
        work: Path,
        events: Events,
        cancel: threading.Event,
    ) -> None:
        self.store = store
        self.inputs = inputs
        self.key = key
        self.root = root
        self._accepted = accepted
        self._work = work
        self._events = events
        self._cancel = cancel
        self.hits: set[str] = set()
        """Keys of the steps whose results were there."""

    def __call__(self, step: Step, outcomes: Mapping[str, Outcome]) -> StepResult:
        """The step's result, from the cache where it is there and signed by an accepted key."""
        repository = self.store.repository(step.repository)
        # Tags that something moved are put right by signing again: that is never cached.
        cached = None if step.kind is StepKind.SIGN else self._cached(repository, step)
        if cached is not None:
            self.hits.add(step.key)
            return cached
        self._events.on_start(step)
        if step.kind in BUILT:
            result = self._build(step, repository, outcomes)
        else:
            result = PUBLISHERS[step.kind](self, step, outcomes)
        signature.sign(repository, result.manifest, self.key)
        return result

    def local(self, step: Step, outcomes: Mapping[str, Outcome]) -> dict[str, Path]:
        """Every input of a step as a file on this machine, by role."""
        files = {role: self.inputs.pinned(file) for role, file in step.files.items()}
        for role, key in step.uses.items():
            outcome = outcomes[key]
            if outcome.result is not None and role in outcome.result.files:
                repository = self.store.repository(outcome.step.repository)
                files[role] = self.inputs.blob(repository, outcome.result.files[role])
        return files

    def scratch(self) -> Path:
        """A new empty directory that lives as long as the apply."""
        return Path(tempfile.mkdtemp(dir=self._work))

    def _cached(self, repository: Repository, step: Step) -> StepResult | None:
        """A cached result. Whoever can push could leave one, so an accepted key must have signed
        it; what nobody signed is made anew."""
        result = load_result(repository, step)
        if result is None:
            return None
        try:
            signature.verify(repository, result.manifest, self._accepted)
        except SignatureError:
            return None
        return result

    def _build(
        self, step: Step, repository: Repository, outcomes: Mapping[str, Outcome]
    ) -> StepResult:
        builder = find_builder(step.builder or "", repository=self.root)
        params = dict(step.params)
        if step.kind is StepKind.EVALUATE and params.get("architecture") != host_architecture():
            params["latency"] = False  # a time measured here would say nothing of the target
        request = Request(
            action=step.kind,
            model=":".join(step.model or ()),
            inputs=self.local(step, outcomes),
            params=params,
            output=self.scratch(),
        )
        made = run(
            builder,
            request,
            on_progress=lambda progress: self._events.on_progress(
                step, progress.fraction, progress.message
            ),
            cancel=self._cancel,
        )
        return save_result(repository, step, made.outputs, made.metadata)
