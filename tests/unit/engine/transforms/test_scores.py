from __future__ import annotations

from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.metrics import mean_absolute_error, mean_squared_error

from edgectl.engine import transforms
from edgectl.engine.errors import EngineError, InputError
from edgectl.engine.signature import TensorSpec
from edgectl.engine.transforms.anomaly import ReconstructionError
from edgectl.engine.transforms.scores import (
    ArgMax,
    L2Normalize,
    Sigmoid,
    Softmax,
    Threshold,
    TopK,
)

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


@given(logits=LOGITS)
def test_unit_length_makes_dot_products_cosines(logits: Any) -> None:
    made = L2Normalize().apply(logits)
    assert made.dtype == np.float32
    for row, unit in zip(logits.astype(np.float64), made, strict=True):
        length = np.sqrt((row**2).sum())
        if length > 1e-6:
            np.testing.assert_allclose(unit, row / length, rtol=1e-5, atol=1e-7)
            np.testing.assert_allclose((unit * unit).sum(), 1, rtol=1e-5)
    np.testing.assert_array_equal(L2Normalize().apply(np.zeros((1, 3))), np.zeros((1, 3)))


@pytest.mark.parametrize("shape", [(3,), (3, 1)])
def test_a_threshold_of_one_score_is_a_decision_with_a_label(shape: tuple[int, ...]) -> None:
    scores = np.array([0.2, 0.5, 0.9], np.float32).reshape(shape)
    spec = TensorSpec("y", "FP32", (-1, *shape[1:]), ({"threshold": 0.5},), ("fine", "broken"))
    transforms.check(spec, "output")
    decided = transforms.postprocess(spec, scores)
    assert isinstance(decided, transforms.Classes)
    assert decided.indices.tolist() == [[0], [1], [1]]
    assert [decided.label(row) for row in range(3)] == ["fine", "broken", "broken"]
    assert decided.to_bytes_tensor()[1].tolist() == [b"0.500000:1:broken"]
    np.testing.assert_array_equal(transforms.scores(spec, scores), scores)


def test_a_threshold_of_many_scores_is_as_many_decisions() -> None:
    decided: Any = Threshold(0.5).apply(np.array([[0.2, 0.5], [0.6, 0.1]]), ("a", "b"))
    assert decided.dtype == np.bool_
    assert decided.tolist() == [[False, True], [True, False]]


WINDOWS = hnp.arrays(np.float32, (3, 4, 2), elements=st.floats(-100, 100, width=32))


@given(given_=WINDOWS, output=WINDOWS)
def test_reconstruction_errors_are_scikit_learns(given_: Any, output: Any) -> None:
    flat = [array.reshape(3, -1).T for array in (given_, output)]
    for of, metric in (("mse", mean_squared_error), ("mae", mean_absolute_error)):
        wanted = metric(*flat, multioutput="raw_values")
        made = ReconstructionError(of).apply(output, given_)
        np.testing.assert_allclose(made, wanted, rtol=1e-5, atol=1e-6)


def test_an_autoencoder_is_scored_against_its_input() -> None:
    x = TensorSpec("x", "FP32", (-1, 2))
    y = TensorSpec(
        "y", "FP32", (-1, 2), ({"reconstruction_error": {}}, {"threshold": 1}), ("ok", "odd")
    )
    transforms.check(y, "output")
    transforms.check_together((x,), (y,))
    arrays = {"y": np.array([[1, 2], [3, 4]], np.float32)}
    run = transforms.Run((x,), (y,), {"x": np.array([[1, 2], [3, 8]], np.float32)}, arrays)
    assert transforms.scores(y, arrays["y"], run).tolist() == [0, 8]
    answer = transforms.postprocess(y, arrays["y"], run)
    assert isinstance(answer, transforms.Classes)
    assert (answer.label(0), answer.label(1)) == ("ok", "odd")
    with pytest.raises(InputError, match="needs the inputs and outputs of the run"):
        transforms.scores(y, arrays["y"])
    other = transforms.Run((x,), (y,), {"x": np.zeros((2, 3))}, arrays)
    with pytest.raises(EngineError, match=r"shape \[2, 2\] cannot be compared with an input of"):
        transforms.scores(y, arrays["y"], other)


@pytest.mark.parametrize(
    ("inputs", "parameters", "message"),
    [
        ([("a", (-1, 2)), ("b", (-1, 2))], {}, "must say which 'input' of a, b"),
        ([("a", (-1, 2))], {"input": "c"}, "names the input 'c', but there is a"),
        ([("a", (-1, 3))], {}, "shape [-1, 2] cannot be compared with the input 'a'"),
    ],
)
def test_an_autoencoder_without_its_input(inputs: Any, parameters: Any, message: str) -> None:
    y = TensorSpec("y", "FP32", (-1, 2), ({"reconstruction_error": parameters},))
    specs = [TensorSpec(name, "FP32", shape) for name, shape in inputs]
    with pytest.raises(ValueError, match="output 'y'") as caught:
        transforms.check_together(specs, (y,))
    assert message in str(caught.value)
