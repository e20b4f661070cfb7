from __future__ import annotations

from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edgectl.engine.transforms.scores import ArgMax, Sigmoid, Softmax, TopK

LOGITS = hnp.arrays(
    np.float32,
    st.tuples(st.integers(1, 4), st.integers(2, 12)),
    elements=st.floats(-1e4, 1e4, width=32),
)


def _softmax(row: list[float]) -> list[float]:
    """In Decimal, whose exponents do not overflow, so without the usual shift."""
    powers = [Decimal(value).exp() for value in row]
    return [float(power / sum(powers)) for power in powers]


@given(logits=LOGITS)
def test_softmax_and_sigmoid_are_the_textbook_formulas(logits: Any) -> None:
    wanted = [_softmax(row) for row in logits.tolist()]
    np.testing.assert_allclose(Softmax().apply(logits), wanted, atol=1e-6)
    wanted = [[float(1 / (1 + (-Decimal(x)).exp())) for x in row] for row in logits.tolist()]
    np.testing.assert_allclose(Sigmoid().apply(logits), wanted, atol=1e-6)


@pytest.mark.parametrize("dtype", [np.float16, np.int8, np.float64])
def test_other_dtypes_do_not_overflow(dtype: Any) -> None:
    logits = np.array([[100, -100, 99]], dtype)
    wanted = [_softmax(logits[0].astype(float).tolist())]
    np.testing.assert_allclose(Softmax().apply(logits), wanted, atol=1e-6)


@given(logits=LOGITS, k=st.integers(1, 12))
def test_topk_is_the_head_of_a_stable_sort(logits: Any, k: int) -> None:
    best = TopK(k).apply(logits)
    for row, (indices, scores) in enumerate(zip(best.indices, best.scores, strict=True)):
        exact = [Fraction(float(score)) for score in logits[row]]
        wanted = sorted(range(len(exact)), key=lambda i: (-exact[i], i))[:k]
        assert indices.tolist() == wanted
        assert scores.tolist() == [float(logits[row][i]) for i in wanted]
    np.testing.assert_array_equal(ArgMax().apply(logits).indices[:, 0], logits.argmax(axis=-1))


def test_answers_as_a_bytes_tensor() -> None:
    best = TopK(2).apply(np.array([[0.25, 0.75], [1.0, 0.0]]), ("cat", "a:b"))
    assert best.to_bytes_tensor().tolist() == [
        [b"0.750000:1:a:b", b"0.250000:0:cat"],
        [b"1.000000:0:cat", b"0.000000:1:a:b"],
    ]
    assert (best.label(0), best.label(1)) == ("a:b", "cat")
    assert TopK(1).apply(np.array([[0.5, 0.5]])).to_bytes_tensor().tolist() == [[b"0.500000:0"]]
    assert TopK(1).apply(np.array([[0, 2]])).label(0) == "1"
