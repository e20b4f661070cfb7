from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from edgectl.build.kit.agreement import check
from edgectl.build.kit.data import Samples
from edgectl.build.protocol import RefusalError

SAMPLES = Samples({"x": np.zeros((4, 3), np.float32)}, "random")
CHANCE = np.random.default_rng(0)


def differs(want: Any, got: Any) -> str | None:
    try:
        check({"y": np.asarray(want)}, {"y": np.asarray(got)}, SAMPLES)
    except RefusalError as refusal:
        return refusal.message if refusal.code == "outputs-changed" else None
    return None


def test_many_small_probabilities_do_not_hide_another_model() -> None:
    logits = CHANCE.normal(size=(4, 1000)) * 0.3
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    uniform = np.full_like(probabilities, 1 / 1000)
    assert np.abs(probabilities - uniform).max() < 2e-3
    assert "differs by" in (differs(probabilities, uniform) or "")
    rounded = probabilities.astype(np.float32)
    assert differs(probabilities, rounded) is None


@pytest.mark.parametrize("size", [1.0, 50.0])
def test_outputs_that_reach_one_are_held_to_what_is_stated(size: float) -> None:
    want = np.array([[size, 0.0]], np.float32)
    assert differs(want, want + np.array([[0.0, 0.9e-3]])) is None
    assert differs(want, want + np.array([[0.0, 1.2e-3]])) is not None


def test_the_rounding_of_nothing_is_allowed() -> None:
    nothing = np.zeros((4, 2), np.float32)
    assert differs(nothing, nothing + np.float32(5e-7)) is None
    assert differs(nothing, nothing + np.float32(5e-6)) is not None


@pytest.mark.parametrize(
    ("want", "got"),
    [
        (np.zeros((4, 2)), np.zeros((4, 3))),
        (np.zeros((4, 2)), np.full((4, 2), np.nan)),
        (np.array(["a", "b"]), np.array(["a", "c"])),
        (np.array([np.inf, 0.0]), np.array([1.0, 0.0])),
    ],
)
def test_what_cannot_be_close(want: Any, got: Any) -> None:
    assert differs(want, got) is not None


def test_an_output_that_is_missing() -> None:
    with pytest.raises(RefusalError, match="is missing"):
        check({"y": np.zeros(2)}, {}, SAMPLES)


def test_says_what_it_compared() -> None:
    want = np.array([[2.0, np.nan]])
    assert check({"y": want}, {"y": want + 2.0**-12}, SAMPLES) == {
        "samples": 4,
        "data": "random",
        "maxDifference": 2.0**-12,
        "absolute": 1e-3,
        "relative": 1e-3,
    }
