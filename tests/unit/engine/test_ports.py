from __future__ import annotations

import numpy as np
import pytest

from edgectl.engine.ports import Affine, Port
from edgectl.engine.signature import TensorSpec

INT8 = Port(0, TensorSpec("x", "FP32", (-1, 1)), (1, 1), Affine(np.dtype("i1"), np.float32(1), -3))
FLOAT = Port(1, TensorSpec("y", "FP32", (-1, 4)), (1, 4), None)


@pytest.mark.parametrize(
    ("real", "integer"),
    [
        (0.5, -2), (-0.5, -4), (2.5, 0), (-2.5, -6), (0.49999997, -3), (-0.49999997, -3),
        (1e9, 127), (-1e9, -128),
    ],
)  # fmt: skip
def test_halves_are_rounded_away_from_zero(real: float, integer: int) -> None:
    found = INT8.quantise(np.array([[real]], np.float32))
    assert found.dtype == np.int8
    assert found.item() == integer


def test_integers_come_back_as_what_they_stand_for() -> None:
    real = INT8.dequantise(np.array([[-128], [-3], [127]], np.int8))
    assert real.dtype == np.float32
    assert real.ravel().tolist() == [-125, 0, 130]


def test_what_is_not_quantised_is_left_alone() -> None:
    values = np.ones((2, 4), np.float32)
    assert FLOAT.quantise(values) is values
    assert FLOAT.dequantise(values) is values


def test_a_batch_of_nothing() -> None:
    assert (INT8.no_rows().shape, INT8.no_rows().dtype) == ((0, 1), np.dtype(np.int8))
    assert (FLOAT.no_rows().shape, FLOAT.no_rows().dtype) == ((0, 4), np.dtype(np.float32))
