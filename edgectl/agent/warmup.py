"""Try a staged model in a process of its own, before any traffic reaches it.

`edgectl.engine.warmup` loads the model, compares its golden outputs and measures it. Whatever the
model does to that process, up to killing it, is an answer.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Self

from edgectl.agent.failure import InterruptedUpdateError
from edgectl.agent.stopping import Stopped, pause
from edgectl.errors import ConfigError, HealthError
from edgectl.quantity import format_bytes, format_seconds

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path
    from threading import Event

RUNS = 30
_ENGINE = ("numpy", "onnxruntime")
_LOOK = 0.1
"""Seconds between looks at the stop flag while a warm-up runs."""
_STDERR_KEPT = 500
_STOPPING = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP}
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
) -> WarmupReport:
    """Run a model's warm-up; raises UnhealthyModelError if it does not get to an answer.

    Raises InterruptedUpdateError, or Stopped, if somebody ended the process: a model cannot send
    those signals, but systemd sends them to all processes of a service that it stops. Raises
    ConfigError where no engine is installed, which says nothing about a model either.
    """
    _require_engine()
    command = [sys.executable, "-P", "-m", "edgectl.engine.warmup", str(directory),
               "--threads", str(threads), "--runs", str(runs)]  # fmt: skip
    if samples is not None:
        command += ["--samples", str(samples)]
    output, errors, code = _run(command, timeout, stop, model)
    if -code in _STOPPING:
        pause(_GRACE, stop)
        raise InterruptedUpdateError(f"the warm-up of {model} {_ending(code)}")
    try:
        if code == 0:
            return WarmupReport.from_json(json.loads(output.splitlines()[-1]))
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise UnhealthyModelError(
            model, f"the warm-up of {model} gives a malformed report: {error!r}"
        ) from error
    raise UnhealthyModelError(model, f"the warm-up of {model} {_ending(code)}: {errors}")


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


def _require_engine() -> None:
    for package in _ENGINE:
        if find_spec(package) is None:
            raise ConfigError(
                f"this device cannot run models: {package} is not installed",
                hint="pip install 'edgectl[device]'",
            )


def _run(command: Sequence[str], timeout: float, stop: Event, model: str) -> tuple[bytes, str, int]:
    deadline = time.monotonic() + timeout
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,  # Ctrl-C in a terminal is for the agent alone
    ) as process:
        while True:
            try:
                output, errors = process.communicate(timeout=_LOOK)
            except subprocess.TimeoutExpired:
                if stop.is_set():
                    process.kill()
                    raise Stopped from None
                if time.monotonic() > deadline:
                    process.kill()
                    raise UnhealthyModelError(
                        model, f"the warm-up of {model} took more than {format_seconds(timeout)}"
                    ) from None
            else:
                text = errors.decode(errors="replace").strip()[-_STDERR_KEPT:]
                return output, text, process.returncode


def _ending(code: int) -> str:
    if code < 0:
        return f"was killed by {signal.Signals(-code).name}"
    return f"ended with exit code {code}"
