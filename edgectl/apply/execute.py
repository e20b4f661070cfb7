"""Execute one step: look for its result, else make it, sign it and cache it."""

from __future__ import annotations

import os
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgectl.apply.publish import PUBLISHERS, is_whole
from edgectl.apply.result import StepResult, load_result, save_artifact, save_files
from edgectl.build.builder import find_builder
from edgectl.build.evaluation import require_complete
from edgectl.build.runner import Request, run
from edgectl.engine.host import host_architecture
from edgectl.errors import SourceError, ToolchainError
from edgectl.oci.descriptor import Descriptor
from edgectl.oci.filesystem import storage_errors
from edgectl.plan.step import StepKind
from edgectl.trust import signature

if TYPE_CHECKING:
    import threading
    from collections.abc import Iterator, Mapping

    from edgectl.apply.events import Events
    from edgectl.apply.inputs import Inputs
    from edgectl.apply.schedule import Outcome
    from edgectl.build.runner import Result
    from edgectl.desired import DesiredBuilder
    from edgectl.oci.store import Store
    from edgectl.plan.step import Step
    from edgectl.trust.keys import PrivateKey, PublicKey

_MAKERS = {StepKind.IMPORT, StepKind.OPTIMIZE, StepKind.COMPILE}
"""Kinds that a builder runs and that have to make a model."""


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
        latency_limits: Mapping[str, float] | None = None,
        step_timeout: float | None = None,
    ) -> None:
        """`latency_limits` are in seconds, by the key of the evaluation that is bound by them;
        `step_timeout` is how long a builder may take for one step."""
        self.store = store
        self.inputs = inputs
        self.key = key
        self.root = root
        self._accepted = accepted
        self._work = work
        self._events = events
        self._cancel = cancel
        self._latency_limits = latency_limits or {}
        self._step_timeout = step_timeout
        self.hits: set[str] = set()
        """Keys of the steps whose results were there."""

    def __call__(self, step: Step, outcomes: Mapping[str, Outcome]) -> StepResult:
        """The step's result, from the cache where it is there and signed by an accepted key."""
        # Tags that something moved are put right by signing again: that is never cached.
        if step.kind is not StepKind.SIGN:
            cached = load_result(self.store.repository(step.repository), step, self._accepted)
            if cached is not None and not self._is_too_slow(step, cached):
                self.hits.add(step.key)
                return cached
        self._events.on_start(step)
        with storage_errors(f"{step.title}, in {self._work}"):
            return self._make(step, outcomes)

    def _is_too_slow(self, step: Step, cached: StepResult) -> bool:
        """Whether a time of another run fails a gate: what kept that machine busy may be gone."""
        limit, measured = self._latency_limits.get(step.key), cached.metadata.get("measured")
        return bool(limit and measured and measured["latency"]["p99"] > limit)

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """A new directory for as long as a step needs it: an apply may have thousands of steps."""
        with tempfile.TemporaryDirectory(dir=self._work) as directory:
            yield Path(directory)

    def local(self, step: Step, outcomes: Mapping[str, Outcome]) -> dict[str, Path]:
        """Every input of a step as a file on this machine, by role."""
        files = {role: self.inputs.pinned(file) for role, file in step.files.items()}
        for role, key in step.uses.items():
            outcome = outcomes[key]
            found = None if outcome.result is None else outcome.result.tree(role)
            repository = self.store.repository(outcome.step.repository)
            if isinstance(found, Descriptor):
                files[role] = self.inputs.blob(repository, found)
            elif found:
                files[role] = self.inputs.tree(repository, found)
        return files

    def _make(self, step: Step, outcomes: Mapping[str, Outcome]) -> StepResult:
        """Make, sign and cache a result."""
        repository = self.store.repository(step.repository)
        if step.builder is not None:
            with self.scratch() as output:
                made = self._build(step, step.builder, outcomes, output)
                result = save_files(repository, step, made.outputs, made.metadata)
            signature.sign(repository, result.manifest, self.key)
            return result
        result = StepResult(PUBLISHERS[step.kind](self, step, outcomes))
        signature.sign(repository, result.manifest, self.key)
        # What lacks a variant is not what the key stands for.
        if step.kind is not StepKind.SIGN and is_whole(step, outcomes):
            record = save_artifact(repository, step, result.manifest)
            signature.sign(repository, record, self.key)
        return result

    def _build(
        self, step: Step, planned: DesiredBuilder, outcomes: Mapping[str, Outcome], output: Path
    ) -> Result:
        builder = find_builder(planned.name, repository=self.root)
        if builder.digest != planned.digest:
            raise SourceError(
                f"builder {planned.name} changed while edgectl was running",
                hint="run the same command again",
            )
        request = Request(
            action=step.kind,
            model=":".join(step.model or ()),
            inputs=self.local(step, outcomes),
            params=_as_here(step, os.cpu_count() or 1),
            output=output,
        )
        made = run(
            builder,
            request,
            on_progress=lambda progress: self._events.on_progress(
                step, progress.fraction, progress.message
            ),
            cancel=self._cancel,
            timeout=self._step_timeout,
        )
        if step.kind in _MAKERS and not any(r.split("/")[0] == "model" for r in made.outputs):
            raise ToolchainError(
                f"builder {builder.name!r} made no model on {step.kind}",
                hint="see docs/builders.md",
            )
        if step.kind is StepKind.EVALUATE:
            require_complete(made.metadata, builder.name)
        return made


def _as_here(step: Step, cores: int) -> dict[str, Any]:
    """A step's parameters as far as this machine, of so many cores, can follow them.

    A time measured on another architecture would say nothing of the target, and one of more threads
    than there are cores for nothing but how they wait for each other.
    """
    params = dict(step.params)
    if step.kind is StepKind.EVALUATE:
        if params.get("architecture") != host_architecture():
            params["latency"] = False
        if "threads" in params:
            params["threads"] = min(int(params["threads"]), cores)
    return params
