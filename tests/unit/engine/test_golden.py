from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgectl.engine.errors import InputError
from edgectl.engine.golden import check_golden, compare, similarity
from edgectl.engine.session import load_session
from tests.support.models import write_linear

if TYPE_CHECKING:
    from pathlib import Path

ROWS = np.array([[1, 0, 2], [0, 1, 0], [3, 1, 1]], np.float32)
ANSWERS = np.array([[11, 14], [3, 4], [11, 16]], np.float32)


@given(
    absolute=st.sampled_from([0, 0.01, 0.5]),
    relative=st.sampled_from([0, 0.01, 0.1]),
    seed=st.integers(0, 1 << 32),
)
def test_agrees_with_allclose(absolute: float, relative: float, seed: int) -> None:
    random = np.random.default_rng(seed)
    wanted = random.normal(size=(4, 3)) * 4
    got = wanted + random.normal(size=(4, 3)) * random.choice([0.001, 0.05, 1])
    problems = compare({"y": wanted}, {"y": got}, {"absolute": absolute, "relative": relative})
    assert bool(problems) != np.allclose(got, wanted, atol=absolute, rtol=relative)


@pytest.mark.parametrize(
    ("got", "tolerance", "problem"),
    [
        ([[1.0, 2.4]], {"absolute": 0.5}, None),
        ([[1.0, 2.6]], {"absolute": 0.5}, "is 2.6 where 2 is expected; it differs by 0.6"),
        ([[1.0, 2.01]], {}, "is 2.01 where 2 is expected"),
        ([[3.0, 2.0]], {"top1": 1.0}, "same best class in 0.0% of rows, at least 100.0%"),
        ([[-9.0, 2.0]], {"top1": 1.0}, None),
        ([[1.0, np.nan]], {"absolute": 1e9, "top1": 0.0}, "holds NaN or infinite values"),
        ([[1.0, np.inf]], {"top1": 0.0}, "holds NaN or infinite values"),
        ([[1.0]], {"absolute": 9.0}, "has shape [1, 1], expected [1, 2]"),
    ],
)
def test_says_what_differs(got: Any, tolerance: dict[str, float], problem: str | None) -> None:
    problems = compare({"y": np.array([[1.0, 2.0]])}, {"y": np.array(got)}, tolerance)
    if problem is None:
        assert problems == []
    else:
        assert len(problems) == 1
        assert problem in problems[0]
        assert problems[0].startswith("output 'y' ")


def test_texts_where_the_model_gives_numbers_are_a_problem() -> None:
    wanted, got = np.array([["nine"]]), np.array([[9.0]], np.float32)
    assert compare({"y": wanted}, {"y": got}, {}) == ["output 'y' holds float32, expected <U4"]


def test_compares_texts_and_notices_missing_outputs() -> None:
    expected = {"t": np.array(["a", "b"]), "y": np.zeros(1)}
    got = {"t": np.array(["a", "c"], object)}
    assert compare(expected, got, {}) == [
        "output 't' differs in 1 of 2 texts",
        "output 'y' is missing",
    ]


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_golden_outputs_that_are_no_numbers_excuse_nothing(value: float, tmp_path: Path) -> None:
    wanted, got = np.array([[1.0, value, 3.0]]), np.array([[99.0, 2.0, 3.0]])
    (problem,) = compare({"y": wanted}, {"y": got}, {"absolute": 0.1})
    assert "NaN or infinite in the golden data" in problem
    session = load_session(write_linear(tmp_path / "m.onnx", batch="N"))
    answers = ANSWERS.copy()
    answers[0, 0] = value
    np.savez(tmp_path / "golden.npz", x=ROWS, y=answers)
    assert similarity(session, tmp_path / "golden.npz") == 0.0


@pytest.mark.parametrize("batch", ["N", 1, 3])
def test_runs_golden_data_in_the_batches_that_the_model_takes(
    tmp_path: Path, batch: int | str
) -> None:
    session = load_session(write_linear(tmp_path / "m.onnx", batch=batch))
    np.savez(tmp_path / "golden.npz", x=ROWS, y=ANSWERS)
    assert check_golden(session, tmp_path / "golden.npz", {}) == []
    off_by_one = ANSWERS.copy()
    off_by_one[2, 1] += 1
    np.savez(tmp_path / "golden.npz", x=ROWS, y=off_by_one)
    [problem] = check_golden(session, tmp_path / "golden.npz", {})
    assert "is 16 where 17 is expected" in problem


def test_golden_data_must_be_complete(tmp_path: Path) -> None:
    session = load_session(write_linear(tmp_path / "m.onnx", batch=2))
    path = tmp_path / "golden.npz"
    np.savez(path, x=ROWS)
    assert check_golden(session, path, {}) == ["golden.npz has no expected outputs"]
    for arrays, message in (
        ({"y": ANSWERS}, "no array for input 'x'"),
        ({"x": ROWS[:0], "y": ANSWERS}, "no rows"),
        ({"x": ROWS, "y": ANSWERS}, "3 rows do not fill batches of 2"),
    ):
        np.savez(path, **arrays)  # type: ignore[arg-type]
        with pytest.raises(InputError, match=message):
            check_golden(session, path, {})
