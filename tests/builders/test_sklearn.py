"""The scikit-learn builder, on estimators fitted here and loaded there."""

from __future__ import annotations

import pickle
import zipfile
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
import skops.io
from sklearn.base import BaseEstimator
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LinearRegression, LogisticRegression, RidgeClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from edgectl.errors import ModelError

if TYPE_CHECKING:
    from pathlib import Path

    from edgectl.build.runner import Result
    from tests.builders.conftest import Build

pytestmark = pytest.mark.slow  # making the toolchains takes minutes, once
ROWS = np.random.default_rng(0).normal(size=(90, 4)).astype(np.float32)
CLASSES = np.arange(90) % 3
SIGNATURE = {
    "inputs": [{"name": "features", "datatype": "FP32", "shape": [-1, 4]}],
    "outputs": [{"name": "probabilities", "datatype": "FP32", "shape": [-1, 3]}],
}


class Homemade(BaseEstimator):  # type: ignore[misc]
    """A type that skops does not know."""

    def predict(self, rows: Any) -> Any:
        return rows


def saved(estimator: Any, folder: Path) -> Path:
    skops.io.dump(estimator, folder / "model.skops")
    return folder / "model.skops"


def imported(build: Build, source: Path, folder: Path, **params: Any) -> Result:
    np.savez(folder / "evaluation.npz", features=ROWS)
    inputs = {"source": source, "evaluation": folder / "evaluation.npz"}
    return build("sklearn", "import", inputs, SIGNATURE | params)


def refusal(build: Build, source: Path, folder: Path, **params: Any) -> ModelError:
    with pytest.raises(ModelError) as caught:
        imported(build, source, folder, **params)
    assert caught.value.hint
    return caught.value


@pytest.mark.parametrize(
    "estimator",
    [
        LogisticRegression(),
        make_pipeline(StandardScaler(), LogisticRegression()),
        RandomForestClassifier(5, random_state=0),
        make_pipeline(
            StandardScaler(),
            MLPClassifier((4,), max_iter=5000, learning_rate_init=0.05, random_state=0),
        ),
    ],
    ids=["linear", "pipeline", "forest", "adam"],
)
def test_a_classifier_gives_its_probabilities_alone(
    build: Build, tmp_path: Path, estimator: Any
) -> None:
    estimator.fit(ROWS, CLASSES)
    result = imported(build, saved(estimator, tmp_path), tmp_path)
    model = onnx.load(result.outputs["model"])
    assert [value.name for value in model.graph.input] == ["features"]
    assert [value.name for value in model.graph.output] == ["probabilities"]
    assert result.metadata["agreement"]["samples"] == min(len(ROWS), 32)
    assert result.metadata["agreement"]["maxDifference"] < 1e-4

    import onnxruntime

    session = onnxruntime.InferenceSession(
        result.outputs["model"], providers=["CPUExecutionProvider"]
    )
    (actual,) = session.run(None, {"features": ROWS})
    np.testing.assert_allclose(actual, estimator.predict_proba(ROWS), atol=1e-4)


def test_a_regressor_gives_its_prediction(build: Build, tmp_path: Path) -> None:
    estimator = LinearRegression().fit(ROWS, ROWS.sum(axis=1))
    outputs = [{"name": "total", "datatype": "FP32", "shape": [-1, 1]}]
    result = imported(build, saved(estimator, tmp_path), tmp_path, outputs=outputs)
    model = onnx.load(result.outputs["model"])
    assert [value.name for value in model.graph.output] == ["total"]


def test_a_standardisation_becomes_plain_arithmetic(build: Build, tmp_path: Path) -> None:
    """TensorRT reads no operator of ai.onnx.ml, which skl2onnx would use for a StandardScaler."""
    estimator = make_pipeline(
        StandardScaler(), MLPClassifier((4,), solver="lbfgs", max_iter=50, random_state=0)
    )
    with pytest.warns(UserWarning, match="converge"):
        estimator.fit(ROWS, CLASSES)
    model = onnx.load(imported(build, saved(estimator, tmp_path), tmp_path).outputs["model"])
    assert {node.domain for node in model.graph.node} == {""}
    assert [entry.domain for entry in model.opset_import] == [""]


def test_a_pickle_is_refused_unread(build: Build, tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> Any:
            return (open, (str(tmp_path / "exploded"), "w"))

    (tmp_path / "model.pkl").write_bytes(pickle.dumps(Bomb()))
    error = refusal(build, tmp_path / "model.pkl", tmp_path)
    assert "pickle" in error.message
    assert "skops.io.dump" in str(error.hint)
    assert not (tmp_path / "exploded").exists()


def test_an_unknown_type_is_named(build: Build, tmp_path: Path) -> None:
    error = refusal(build, saved(Homemade(), tmp_path), tmp_path)
    assert "types that are not trusted" in error.message
    assert "Homemade" in error.message


def test_coefficients_that_are_not_finite_are_refused(build: Build, tmp_path: Path) -> None:
    estimator = LogisticRegression().fit(ROWS, CLASSES)
    estimator.coef_[1, 2] = np.nan
    error = refusal(build, saved(estimator, tmp_path), tmp_path)
    assert "NaN or infinite values, 1 of 12" in error.message
    assert error.node == "LinearClassifier"


def test_a_zip_that_is_no_skops_file_is_refused(build: Build, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "model.skops", "w") as archive:
        archive.writestr("hello", "world")
    assert "not a readable .skops" in refusal(build, tmp_path / "model.skops", tmp_path).message


def test_what_does_not_predict_is_refused(build: Build, tmp_path: Path) -> None:
    scaler = StandardScaler().fit(ROWS)
    error = refusal(build, saved(scaler, tmp_path), tmp_path)
    assert "StandardScaler, which predicts nothing" in error.message


def test_a_classifier_without_probabilities_is_refused(build: Build, tmp_path: Path) -> None:
    error = refusal(build, saved(RidgeClassifier().fit(ROWS, CLASSES), tmp_path), tmp_path)
    assert "without probabilities" in error.message
    assert "CalibratedClassifierCV" in str(error.hint)


def test_a_file_of_another_scikit_learn_is_refused(build: Build, tmp_path: Path) -> None:
    import sklearn

    path = saved(LogisticRegression().fit(ROWS, CLASSES), tmp_path)
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    version = sklearn.__version__.encode()
    members["schema.json"] = members["schema.json"].replace(version, b"1.2.2")
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    error = refusal(build, path, tmp_path)
    assert "saved by scikit-learn 1.2.2" in error.message
    assert "save the model again" in str(error.hint)


@pytest.mark.parametrize(
    ("params", "said"),
    [
        (
            {"inputs": [{"name": "features", "datatype": "FP32", "shape": [-1, 5]}]},
            "'features' is [-1, 4] in the model, FP32 [-1, 5] in the manifest",
        ),
        (
            {"outputs": [{"name": "p", "datatype": "FP32", "shape": [-1, 2]}]},
            "'p' is [-1, 3] in the model, [-1, 2] in the manifest",
        ),
        ({"inputs": []}, "one tensor of inputs, the manifest declares 0"),
    ],
    ids=["columns", "classes", "count"],
)
def test_a_signature_that_differs_is_refused(
    build: Build, tmp_path: Path, params: dict[str, Any], said: str
) -> None:
    source = saved(LogisticRegression().fit(ROWS, CLASSES), tmp_path)
    assert said in refusal(build, source, tmp_path, **params).message


def test_data_of_another_width_are_refused(build: Build, tmp_path: Path) -> None:
    source = saved(LogisticRegression().fit(ROWS, CLASSES), tmp_path)
    np.savez(tmp_path / "evaluation.npz", features=np.ones((2, 7), np.float32))
    inputs = {"source": source, "evaluation": tmp_path / "evaluation.npz"}
    with pytest.raises(ModelError, match=r"\[2, 7\], spec.inputs declares float32 \[-1, 4\]"):
        build("sklearn", "import", inputs, SIGNATURE)
