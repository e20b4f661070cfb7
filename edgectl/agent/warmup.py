"""Try a staged model in a process of its own, before any traffic reaches it.

`edgectl.engine.warmup` loads the model, compares its golden outputs and measures it. Whatever the
model does to that process, up to killing it, is an answer.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Self

from edgectl.agent.child import STOPPING, TookTooLongError, run_child
from edgectl.agent.failure import InterruptedUpdateError
from edgectl.agent.probe import PACKAGES
from edgectl.agent.stopping import pause
from edgectl.errors import ConfigError, HealthError
from edgectl.quantity import format_bytes, format_seconds

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from threading import Event

RUNS = 30
_GRACE = 1.0
"""Seconds in which the agent is told to stop too, if its warm-up was."""


class UnhealthyModelError(HealthError):
    """One model of a slot is known to be the culprit."""

    def __init__(self, model: str, message: str, *, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.model = model


@dataclass(frozen=True, slots=True)
class WarmupReport:
    """What a warm-up found."""

    problems: tuple[str, ...]
    latency_p50: float
    """Seconds."""
    latency_p99: float
    peak_memory: int
    """Bytes of the whole process."""
    accuracy: float | None
    """On the labelled samples, 0 to 1; None without samples."""
    unusable_samples: str = ""
    """What is wrong with the labelled samples: no fault of the model's."""

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """Read the object that `edgectl.engine.warmup` prints."""
        latency = value.get("latency") or {}
        accuracy = value.get("accuracy")
        problems = tuple(str(problem) for problem in value["problems"])
        return cls(
            problems if problems or value["ok"] else ("it is not healthy, and does not say why",),
            float(latency.get("p50", 0.0)),
            float(latency.get("p99", 0.0)),
            int(value.get("peakMemoryBytes", 0)),
            None if accuracy is None else float(accuracy),
            str(value.get("unusableSamples", "")),
        )

    def to_json(self, *, simulated: bool) -> dict[str, Any]:
        """For the agent's records. A host's numbers never pass for a simulated device's."""
        return {
            "latency": {"p50": self.latency_p50, "p99": self.latency_p99},
            "peakMemory": self.peak_memory,
            "accuracy": self.accuracy,
            "simulated": simulated,
        }


def warm_up(
    model: str,
    directory: Path,
    *,
    threads: int,
    timeout: float,
    stop: Event,
    samples: Path | None = None,
    runs: int = RUNS,
    engine: str = "onnxruntime",
    cache: Path | None = None,
) -> WarmupReport:
    """Run a model's warm-up; raises UnhealthyModelError if it does not get to an answer.

    `cache` holds what the engine compiled on this device, where it does.

    Raises InterruptedUpdateError, or Stopped, if somebody ended the process: a model cannot send
    those signals, but systemd sends them to all processes of a service that it stops. Raises
    ConfigError where no engine is installed, which says nothing about a model either.
    """
    _require_engine(engine)
    command = [sys.executable, "-P", "-m", "edgectl.engine.warmup", str(directory),
               "--threads", str(threads), "--runs", str(runs)]  # fmt: skip
    if samples is not None:
        command += ["--samples", str(samples)]
    if cache is not None:
        command += ["--cache", str(cache)]
    try:
        done = run_child(command, timeout=timeout, stop=stop)
    except TookTooLongError:
        raise UnhealthyModelError(
            model, f"the warm-up of {model} took more than {format_seconds(timeout)}"
        ) from None
    if -done.code in STOPPING:
        pause(_GRACE, stop)
        raise InterruptedUpdateError(f"the warm-up of {model} {done.ending}")
    try:
        if done.code == 0:
            return WarmupReport.from_json(json.loads(done.output.splitlines()[-1]))
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise UnhealthyModelError(
            model, f"the warm-up of {model} gives a malformed report: {error!r}"
        ) from error
    raise UnhealthyModelError(model, f"the warm-up of {model} {done.ending}: {done.errors}")


def require_healthy(
    model: str, report: WarmupReport, requires: Mapping[str, Any], *, simulated: bool
) -> None:
    """Hold a report against what the variant promises; raises UnhealthyModelError.

    On simulated hardware latency and memory are not held against anything: they are the host's.
    """
    problems = list(report.problems)
    if not simulated:
        latency, memory = requires.get("latency"), requires.get("peakMemory")
        if latency and report.latency_p99 > latency:
            problems.append(
                f"p99 latency is {format_seconds(report.latency_p99)}, "
                f"allowed are {format_seconds(latency)}"
            )
        if memory and report.peak_memory > memory:
            problems.append(
                f"it needs {format_bytes(report.peak_memory)} of memory, "
                f"allowed are {format_bytes(memory)}"
            )
    if problems:
        raise UnhealthyModelError(
            model,
            f"{model} is not healthy on this device: {'; '.join(problems)}",
            hint="release a version that is; this one is not tried again here",
        )


def _require_engine(engine: str) -> None:
    for package in ("numpy", PACKAGES.get(engine, engine)):
        if find_spec(package) is None:
            raise ConfigError(
                f"this device cannot run models: {package} is not installed",
                hint="pip install 'edgectl[device]'"
                if package in {"numpy", PACKAGES["onnxruntime"]}
                else f"pip install {package.replace('_', '-')}",
            )
