from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as sk

from edgectl.engine.errors import InputError
from edgectl.engine.metrics import class_indices, classification, regression


@given(seed=st.integers(0, 1 << 32), rows=st.integers(2, 60), classes=st.integers(2, 7))
def test_classification_is_that_of_scikit_learn(seed: int, rows: int, classes: int) -> None:
    random = np.random.default_rng(seed)
    labels = random.integers(0, classes, rows)
    scores = random.integers(0, 8, (rows, classes)).astype(np.float32) / 8  # with ties
    found = classification(labels, scores)
    predicted = scores.argmax(axis=1)
    assert found["accuracy"] == pytest.approx(sk.accuracy_score(labels, predicted))
    average = "binary" if classes == 2 else "macro"
    wanted = sk.f1_score(labels, predicted, average=average, zero_division=0)
    assert found["f1"] == pytest.approx(wanted)
    assert ("top3" in found) == (classes > 3)
    assert ("auc" in found) == (classes == 2 and len(set(labels.tolist())) == 2)
    if "auc" in found:
        wanted = sk.roc_auc_score(labels, scores[:, 1] - scores[:, 0])
        assert found["auc"] == pytest.approx(wanted)


@given(seed=st.integers(0, 1 << 32), rows=st.integers(1, 40))
def test_top3_is_that_of_scikit_learn(seed: int, rows: int) -> None:
    random = np.random.default_rng(seed)
    labels = random.integers(0, 10, rows)
    scores = random.permuted(np.tile(np.arange(10.0), (rows, 1)), axis=1)
    wanted = sk.top_k_accuracy_score(labels, scores, k=3, labels=range(10))
    assert classification(labels, scores)["top3"] == pytest.approx(wanted)


@pytest.mark.parametrize("shape", [(-1,), (-1, 1)])
def test_one_score_is_the_probability_of_the_positive_class(shape: tuple[int, ...]) -> None:
    labels = np.array([0, 1, 1, 0])
    scores = np.array([0.1, 0.9, 0.4, 0.6], np.float32)
    assert classification(labels, scores.reshape(shape)) == {
        "accuracy": 0.5,
        "f1": pytest.approx(sk.f1_score(labels, scores >= 0.5)),
        "auc": pytest.approx(sk.roc_auc_score(labels, scores)),
    }


def test_whole_numbers_are_predicted_classes() -> None:
    labels, predicted = np.array([0, 2, 1, 5]), np.array([0, 2, 2, 5])
    assert classification(labels, predicted) == {
        "accuracy": 0.75,
        "f1": pytest.approx(sk.f1_score(labels, predicted, average="macro")),
    }


@given(seed=st.integers(0, 1 << 32), rows=st.integers(2, 40))
def test_regression_is_that_of_scikit_learn(seed: int, rows: int) -> None:
    random = np.random.default_rng(seed)
    wanted, got = random.normal(size=rows), random.normal(size=(rows, 1)).astype(np.float32)
    assert regression(wanted, got) == {
        "mae": pytest.approx(sk.mean_absolute_error(wanted, got)),
        "rmse": pytest.approx(sk.root_mean_squared_error(wanted, got)),
        "r2": pytest.approx(sk.r2_score(wanted, got)),
    }


def test_a_constant_has_no_r2() -> None:
    assert regression(np.ones(3), np.ones(3)) == {"mae": 0.0, "rmse": 0.0}


@pytest.mark.parametrize("labels", [[0, 1, 3], [0, -1, 1], [0, 1]])
def test_refuses_labels_that_do_not_fit(labels: list[int]) -> None:
    with pytest.raises(InputError, match="labels"):
        classification(np.array(labels), np.zeros((3, 3), np.float32))


def test_labels_are_indices_or_names() -> None:
    names = ("cat", "dog")
    assert class_indices(np.array(["dog", "cat"]), names).tolist() == [1, 0]
    assert class_indices(np.array([b"dog", b"cat"]), names).tolist() == [1, 0]
    assert class_indices(np.array([[1], [0]], np.uint8), names).tolist() == [1, 0]
    with pytest.raises(InputError, match="label 'cow' is not one of the model's"):
        class_indices(np.array(["cow"]), names)
    with pytest.raises(InputError, match="neither whole numbers nor texts"):
        class_indices(np.array([0.5]), names)
    with pytest.raises(InputError, match="not one for each row"):
        class_indices(np.eye(2, dtype=int), names)
