"""Latency, load time and peak memory of a model on the machine that runs this.

`python -m edgectl.engine.measure REQUEST` measures in a process that does nothing else, so that
the memory is the model's and the engine's, not that of a toolchain; it prints one JSON object.
"""

from __future__ import annotations

import json
import math
import re
import resource
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgectl.engine.energy import EnergyMeter
from edgectl.engine.errors import EngineError
from edgectl.engine.options import EngineOptions
from edgectl.engine.session import Session, load_session

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

WARM_UP_RUNS = 5
THROUGHPUT_BATCH = 8
THROUGHPUT_RUNS = 20
CEILING_SECONDS = 30.0
"""Measuring stops after this long, however many runs were asked for."""


@dataclass(frozen=True, slots=True)
class Latency:
    """Seconds per run, by nearest rank over `runs` runs of `batch` rows each."""

    p50: float
    p99: float
    runs: int
    threads: int
    batch: int

    def to_json(self) -> dict[str, Any]:
        """The `latency` object of reports."""
        return {
            "p50": self.p50, "p99": self.p99, "runs": self.runs,
            "threads": self.threads, "batch": self.batch,
        }  # fmt: skip


def measure_latency(
    session: Session,
    inputs: Mapping[str, NDArray[Any]],
    *,
    runs: int,
    threads: int,
    ceiling: float = CEILING_SECONDS,
) -> Latency:
    """Time runs of the same inputs after a few unmeasured ones.

    `threads` is what the session was loaded with, for the record. After `ceiling` seconds no
    further run starts: a slow model gets fewer runs, at least one.
    """
    end = time.monotonic() + ceiling
    for _ in range(WARM_UP_RUNS):
        session.run(inputs)
        if time.monotonic() > end:
            break
    taken: list[int] = []
    while len(taken) < max(1, runs):
        start = time.perf_counter_ns()
        session.run(inputs)
        taken.append(time.perf_counter_ns() - start)
        if time.monotonic() > end:
            break
    batch = len(next(iter(inputs.values())))
    return Latency(
        percentile(taken, 50) / 1e9, percentile(taken, 99) / 1e9, len(taken), threads, batch
    )


def percentile(values: Sequence[int], percent: float) -> int:
    """The nearest-rank percentile: the least value that `percent` of all do not exceed."""
    return sorted(values)[max(0, math.ceil(len(values) * percent / 100) - 1)]


def reset_peak_memory() -> bool:
    """Start a new peak from what is resident now (proc_pid_clear_refs(5)); False if impossible."""
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return False
    return True


def peak_memory() -> int:
    """The most bytes this process had resident, since its start or `reset_peak_memory`."""
    try:
        status = Path("/proc/self/status").read_text(encoding="utf-8")
    except OSError:  # No Linux: getrusage knows the peak since the start, on macOS in bytes.
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    found = re.search(r"^VmHWM:\s+(\d+) kB$", status, re.MULTILINE)
    if found is None:
        raise EngineError("the kernel does not report the peak memory of processes")
    return int(found[1]) * 1024


def measure_apart(
    model: Path,
    data: Path,
    *,
    engine: Mapping[str, Any],
    threads: int,
    runs: int,
    power: float | None = None,
) -> dict[str, Any]:
    """Measure a model in a process of its own, on the first row of an .npz.

    `engine` is the engine's `name` and options, as a signature has them.

    The result has `latency`, `loadSeconds`, `peakMemoryBytes` (of the whole process, Python and
    engine included), `throughput` (`rowsPerSecond` in batches of `batch`) and, where it can be read
    or `power` is given in watts, `energy` (`joules` of one run, and its `source`: `rapl`, `ina` or
    `estimate`). Raises EngineError if the process fails.
    """
    request = {
        "model": str(model),
        "data": str(data),
        "engine": dict(engine),
        "threads": threads,
        "runs": runs,
        "power": power,
    }
    command = [sys.executable, "-P", "-m", "edgectl.engine.measure", json.dumps(request)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
        raise EngineError(f"measuring {model.name} failed: {last}")
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def _measure(request: Mapping[str, Any]) -> dict[str, Any]:
    from edgectl.engine.batches import fixed_batch
    from edgectl.engine.npz import read_npz

    start = time.perf_counter()
    session = load_session(
        Path(request["model"]),
        engine=request["engine"].get("name", "onnxruntime"),
        options=EngineOptions.from_json(request["engine"]),
        threads=request["threads"],
    )
    load_seconds = time.perf_counter() - start
    rows, threads = fixed_batch(session) or 1, request["threads"]
    arrays = read_npz(Path(request["data"]), rows=fixed_batch(session) or THROUGHPUT_BATCH)
    single = {spec.name: arrays[spec.name][:rows] for spec in session.inputs}
    with EnergyMeter() as meter:
        latency = measure_latency(session, single, runs=request["runs"], threads=threads)
    result = {
        "latency": latency.to_json(),
        "loadSeconds": load_seconds,
        "peakMemoryBytes": peak_memory(),
    }
    if energy := _energy(meter, latency, request["power"]):
        result["energy"] = energy
    several = {spec.name: arrays[spec.name] for spec in session.inputs}
    batch = measure_latency(
        session, several, runs=min(THROUGHPUT_RUNS, request["runs"]), threads=threads
    )
    return result | {"throughput": {"rowsPerSecond": batch.batch / batch.p50, "batch": batch.batch}}


def _energy(meter: EnergyMeter, latency: Latency, power: float | None) -> dict[str, Any] | None:
    """Joules of one run; the meter counted the runs before the timed ones too."""
    if meter.joules:
        return {"joules": meter.joules / (latency.runs + WARM_UP_RUNS), "source": meter.source}
    if power is not None:
        return {"joules": power * latency.p50, "source": "estimate"}
    return None


if __name__ == "__main__":
    sys.stdout.write(json.dumps(_measure(json.loads(sys.argv[1]))) + "\n")
