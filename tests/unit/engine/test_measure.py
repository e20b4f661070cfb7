from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgectl.engine.errors import EngineError
from edgectl.engine.measure import (
    measure_apart,
    measure_latency,
    peak_memory,
    percentile,
    reset_peak_memory,
)
from edgectl.engine.session import load_session
from tests.support.models import write_linear

if TYPE_CHECKING:
    from pathlib import Path

X = {"x": np.ones((1, 3), np.float32)}


@given(values=st.lists(st.integers(0, 1000), min_size=1, max_size=300), percent=st.integers(1, 100))
def test_percentile_is_the_nearest_rank(values: list[int], percent: int) -> None:
    found = percentile(values, percent)
    assert found in values
    assert sum(value <= found for value in values) >= math.ceil(len(values) * percent / 100)
    assert sum(value < found for value in values) < len(values) * percent / 100


def test_latency(tmp_path: Path) -> None:
    session = load_session(write_linear(tmp_path / "m.onnx"))
    latency = measure_latency(session, X, runs=20, threads=1)
    assert 0 < latency.p50 <= latency.p99
    assert (latency.runs, latency.threads, latency.batch) == (20, 1, 1)


def test_a_ceiling_ends_the_measurement_but_not_before_one_run(tmp_path: Path) -> None:
    session = load_session(write_linear(tmp_path / "m.onnx"))
    latency = measure_latency(session, X, runs=1_000_000_000, threads=1, ceiling=0)
    assert latency.runs == 1


def test_peak_memory_falls_only_when_it_is_reset() -> None:
    slack = 4 << 20  # The kernel counts pages per CPU and sums them up late.
    big = np.ones(64 << 20, np.uint8)
    high = peak_memory()
    del big
    assert peak_memory() >= high - slack
    assert reset_peak_memory()
    assert peak_memory() <= high - (64 << 20) + slack


def test_measures_in_a_process_of_its_own(tmp_path: Path) -> None:
    model = write_linear(tmp_path / "m.onnx")
    np.savez(tmp_path / "d.npz", x=np.ones((7, 3), np.float32), label=np.zeros(7))
    ballast = np.ones(256 << 20, np.uint8)
    measured = measure_apart(model, tmp_path / "d.npz", engine={}, threads=1, runs=10)
    assert measured["latency"]["runs"] == 10
    assert measured["latency"]["batch"] == 1
    assert measured["loadSeconds"] > 0
    assert 10 << 20 < measured["peakMemoryBytes"] < ballast.nbytes


def test_a_failing_process_is_one_error(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(b"no model")
    with pytest.raises(EngineError, match=r"measuring m\.onnx failed: .*not an ONNX model"):
        measure_apart(
            tmp_path / "m.onnx",
            tmp_path / "d.npz",
            engine={},
            threads=1,
            runs=1,
        )
