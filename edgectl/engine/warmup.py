"""Prove a model on this machine before it gets traffic.

`python -m edgectl.engine.warmup MODEL_DIR [--threads N] [--runs K] [--samples DIR] [--cache DIR]`
prints one JSON object, `{"ok", "problems", "latency", "peakMemoryBytes", "loadSeconds",
"providers", "host"}` and with samples `"accuracy"` and `"samples"`, or `"unusableSamples"` and why:
they are no fault of the model. The exit status is 0 whether the model is healthy or not; another
one means that the process died. Limits are the caller's, and so is a time limit for a model that
hangs.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgectl.engine.batches import fixed_batch
from edgectl.engine.errors import EngineError, InputError
from edgectl.engine.golden import MAX_GOLDEN_BYTES, check_golden
from edgectl.engine.host import describe_host
from edgectl.engine.measure import measure_latency, peak_memory, reset_peak_memory
from edgectl.engine.modeldir import ModelDirectory
from edgectl.engine.npz import read_npz
from edgectl.engine.samples import measure_accuracy
from edgectl.engine.transforms import load_assets

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgectl.engine.session import Session

DEFAULT_RUNS = 20


def warm_up(
    path: Path,
    *,
    threads: int = 1,
    runs: int = DEFAULT_RUNS,
    samples: Path | None = None,
    cache: Path | None = None,
) -> dict[str, Any]:
    """Load the model directory, run its golden data, measure, and count right samples.

    Golden rows run one at a time, as requests come, so that the peak memory (of this process,
    Python and engine included) is that of serving. Whatever fails is a problem of the report, and
    what was measured until then stays in it.
    """
    report: dict[str, Any] = {"ok": False, "problems": [], "host": describe_host()}
    try:
        _fill(report, ModelDirectory.open(path), threads, runs, samples, cache)
    except EngineError as error:
        report["problems"].append(str(error))
    report["ok"] = not report["problems"]
    return report


def _fill(
    report: dict[str, Any],
    model: ModelDirectory,
    threads: int,
    runs: int,
    samples: Path | None,
    cache: Path | None,
) -> None:
    reset_peak_memory()
    load_assets(model.signature.inputs, model.path)
    start = time.perf_counter()
    session = model.load(threads=threads, cache=cache)
    report["loadSeconds"] = time.perf_counter() - start
    report["providers"] = list(session.providers)
    report["host"]["engine"] = session.engine
    if model.golden_file is None:
        report["problems"].append("the model has no golden data to check it by")
    else:
        tolerance = model.signature.golden_tolerance
        report["problems"] += check_golden(session, model.golden_file, tolerance)
        rows = fixed_batch(session) or 1
        arrays = read_npz(model.golden_file, rows=rows, max_bytes=MAX_GOLDEN_BYTES)
        inputs = {spec.name: arrays[spec.name] for spec in session.inputs}
        latency = measure_latency(session, inputs, runs=runs, threads=threads)
        report["latency"] = latency.to_json()
        report["peakMemoryBytes"] = peak_memory()
    if samples is not None:
        _measure_accuracy(report, session, model, samples)


def _measure_accuracy(
    report: dict[str, Any], session: Session, model: ModelDirectory, samples: Path
) -> None:
    try:
        accuracy = measure_accuracy(session, model.signature, samples, assets=model.path)
    except InputError as error:
        report["unusableSamples"] = str(error)
        return
    report["accuracy"], report["samples"] = accuracy.share, accuracy.total


def _main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m edgectl.engine.warmup")
    parser.add_argument("model", type=Path)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--runs", type=int, default=DEFAULT_RUNS)
    parser.add_argument("--samples", type=Path)
    parser.add_argument("--cache", type=Path)
    given = parser.parse_args(arguments)
    report = warm_up(
        given.model,
        threads=given.threads,
        runs=given.runs,
        samples=given.samples,
        cache=given.cache,
    )
    sys.stdout.write(json.dumps(report) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(_main())
