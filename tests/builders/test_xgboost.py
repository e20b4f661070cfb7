"""The XGBoost builder, on models trained in its own environment (the tests need no XGBoost)."""

from __future__ import annotations

import json
import pickle
import subprocess
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnxruntime
import pytest

from edgectl.build.builder import find_builder
from edgectl.build.toolchain import prepare
from edgectl.errors import ModelError
from edgectl.manifest.load import load_project
from tests.support.builders import MANIFESTS

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from edgectl.build.runner import Result
    from tests.builders.conftest import Build

pytestmark = pytest.mark.slow  # making the toolchains takes minutes, once

TRAIN = """
import json, sys
import numpy as np
import xgboost

folder = sys.argv[1]
chance = np.random.default_rng(0)
rows = chance.normal(size=(240, 5)).astype(np.float32)
clean = rows.copy()
rows[chance.random(rows.shape) < 0.15] = np.nan
first = clean[:, 0] + 0.5 * clean[:, 1]
labels = {
    "two": (first > 0).astype(int), "three": np.digitize(first, [-0.5, 0.5]), "real": first,
    "positive": np.exp(first / 2), "many": (clean[:, :3] > 0).astype(int), "pair": clean[:, :2],
}
MODELS = {
    "binary": ("two", {"objective": "binary:logistic"}),
    "hinge": ("two", {"objective": "binary:hinge"}),
    "logitraw": ("two", {"objective": "binary:logitraw"}),
    "softprob": ("three", {"objective": "multi:softprob", "num_class": 3}),
    "softmax": ("three", {"objective": "multi:softmax", "num_class": 3, "num_parallel_tree": 2,
                          "subsample": 0.7}),
    "multilabel": ("many", {"objective": "binary:logistic"}),
    "squared": ("real", {"objective": "reg:squarederror"}),
    "absolute": ("real", {"objective": "reg:absoluteerror"}),
    "quantile": ("real", {"objective": "reg:quantileerror", "quantile_alpha": [0.1, 0.5, 0.9]}),
    "huber": ("real", {"objective": "reg:pseudohubererror"}),
    "logistic": ("two", {"objective": "reg:logistic", "base_score": 0.3}),
    "poisson": ("positive", {"objective": "count:poisson"}),
    "gamma": ("positive", {"objective": "reg:gamma"}),
    "tweedie": ("positive", {"objective": "reg:tweedie"}),
    "cox": ("positive", {"objective": "survival:cox"}),
    "dart": ("real", {"objective": "reg:squarederror", "booster": "dart", "rate_drop": 0.5}),
    "pair": ("pair", {"objective": "reg:squarederror"}),
    "vector": ("pair", {"objective": "reg:squarederror", "multi_strategy": "multi_output_tree"}),
    "linear": ("real", {"objective": "reg:squarederror", "booster": "gblinear"}),
    "constant": ("real", {"objective": "reg:squarederror", "min_child_weight": 1e9}),
    "ranking": ("rank", {"objective": "rank:ndcg"}),
    "stopped": ("real", {"objective": "reg:squarederror", "learning_rate": 1.0}),
    "categories": ("category", {"objective": "reg:squarederror", "max_cat_to_onehot": 1}),
}
expected = {"rows": rows}
for name, (label, params) in MODELS.items():
    extra, train = {}, {}
    if label == "rank":
        data = xgboost.DMatrix(rows, np.digitize(first, [-1, 0, 1]), qid=np.arange(240) // 12)
    elif label == "category":
        table = np.abs(np.round(clean[:, :2] * 3))
        data = xgboost.DMatrix(table, table[:, 1] % 3, feature_types=["q", "c"],
                               feature_names=["size", "colour"], enable_categorical=True)
    else:
        data = xgboost.DMatrix(rows, labels[label])
    if name == "stopped":
        noisy = xgboost.DMatrix(rows[:60], first[:60] + chance.normal(size=60))
        train = {"evals": [(noisy, "noisy")], "early_stopping_rounds": 5, "verbose_eval": False}
    params = {"max_depth": 4, "nthread": 1, "seed": 0} | params
    model = xgboost.train(params, data, 30 if train else 6, **train)
    for form in ("json", "ubj"):
        model.save_model(f"{folder}/{name}.{form}")
    if name in ("categories", "linear"):
        continue
    limits = (0, model.best_iteration + 1) if train else (0, 0)
    if name == "stopped":
        assert limits[1] < model.num_boosted_rounds()
    if params["objective"] == "multi:softmax":
        model.set_param({"objective": "multi:softprob"})
    expected[name] = model.predict(xgboost.DMatrix(rows), iteration_range=limits)
np.savez(f"{folder}/expected.npz", **expected)
"""

FEATURES = {"name": "features", "datatype": "FP32", "shape": [-1, 5]}


def output(width: int) -> dict[str, Any]:
    return {"name": "answer", "datatype": "FP32", "shape": [-1, width]}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with every model as .json and .ubj, and expected.npz with what XGBoost predicts."""
    folder = tmp_path_factory.mktemp("xgboost")
    python = prepare(find_builder("xgboost"))
    subprocess.run([python, "-c", TRAIN, str(folder)], check=True, capture_output=True)
    return folder


def imported(build: Build, source: Path, width: int, **params: Any) -> Result:
    signature = {"inputs": [FEATURES], "outputs": [output(width)]} | params
    return build("xgboost", "import", {"source": source}, signature)


def refusal(build: Build, source: Path, width: int = 1, **params: Any) -> ModelError:
    with pytest.raises(ModelError) as caught:
        imported(build, source, width, **params)
    assert caught.value.hint
    return caught.value


def answers(model: Path, rows: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    assert [value.name for value in session.get_inputs()] == ["features"]
    assert [value.name for value in session.get_outputs()] == ["answer"]
    answer: np.ndarray = session.run(None, {"features": rows})[0]
    return answer


@pytest.mark.parametrize("form", ["json", "ubj"])
@pytest.mark.parametrize(
    ("name", "width"),
    [
        ("binary", 1), ("hinge", 1), ("logitraw", 1), ("softprob", 3), ("softmax", 3),
        ("multilabel", 3), ("squared", 1), ("absolute", 1), ("quantile", 3), ("huber", 1),
        ("logistic", 1), ("poisson", 1), ("gamma", 1), ("tweedie", 1), ("cox", 1), ("dart", 1),
        ("pair", 2), ("constant", 1), ("ranking", 1), ("stopped", 1),
    ],
)  # fmt: skip
def test_every_objective_answers_as_xgboost_with_values_missing(
    build: Build, trained: Path, name: str, width: int, form: str
) -> None:
    result = imported(build, trained / f"{name}.{form}", width)
    with np.load(trained / "expected.npz") as expected:
        rows, want = expected["rows"], expected[name]
    assert np.isnan(rows).any()
    got = answers(result.outputs["model"], rows)
    np.testing.assert_allclose(got, want.reshape(got.shape), rtol=1e-4, atol=1e-5)
    assert result.metadata["agreement"]["data"] == "random"
    assert result.metadata["agreementWithMissing"]["samples"] > 0


def test_a_binary_classifier_can_give_both_classes_or_a_row_of_scores(
    build: Build, trained: Path
) -> None:
    with np.load(trained / "expected.npz") as expected:
        rows, want = expected["rows"], expected["binary"]
    source = trained / "binary.json"
    both = answers(imported(build, source, 2).outputs["model"], rows)
    np.testing.assert_allclose(both, np.stack([1 - want, want], axis=1), atol=1e-5)
    flat = {"outputs": [output(1) | {"shape": [-1]}]}
    scores = answers(imported(build, source, 1, **flat).outputs["model"], rows)
    np.testing.assert_allclose(scores, want, atol=1e-5)


def test_the_same_file_gives_the_same_bytes_in_either_form(build: Build, trained: Path) -> None:
    made = [
        imported(build, trained / f"softprob.{form}", 3).outputs["model"].read_bytes()
        for form in ("json", "json", "ubj")
    ]
    assert made[0] == made[1] == made[2]


def test_real_rows_are_used_where_there_are_any(
    build: Build, trained: Path, tmp_path: Path
) -> None:
    with np.load(trained / "expected.npz") as expected:
        np.savez(tmp_path / "evaluation.npz", features=expected["rows"])
    inputs = {"source": trained / "squared.json", "evaluation": tmp_path / "evaluation.npz"}
    signature = {"inputs": [FEATURES], "outputs": [output(1)]}
    agreement = build("xgboost", "import", inputs, signature).metadata["agreement"]
    assert agreement["data"] == "evaluation"
    assert agreement["maxDifference"] < 1e-4


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("linear", "booster 'gblinear'"),
        ("vector", "a score for every output"),
        ("categories", "feature 'colour' is split by categories"),
    ],
)
def test_what_has_no_form_in_onnx_is_refused_by_name(
    build: Build, trained: Path, name: str, said: str
) -> None:
    features = FEATURES | {"shape": [-1, 2 if name == "categories" else 5]}
    assert said in refusal(build, trained / f"{name}.json", inputs=[features]).message


def test_a_pickle_is_refused_unread(build: Build, tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> Any:
            return (open, (str(tmp_path / "exploded"), "w"))

    (tmp_path / "model.pkl").write_bytes(pickle.dumps(Bomb()))
    error = refusal(build, tmp_path / "model.pkl")
    assert "a pickle" in error.message
    assert "save_model" in str(error.hint)
    assert not (tmp_path / "exploded").exists()


def test_the_old_binary_format_is_refused(build: Build, tmp_path: Path) -> None:
    (tmp_path / "model.model").write_bytes(b"binf" + bytes(100))
    assert "old binary format" in refusal(build, tmp_path / "model.model").message


def change(path: tuple[Any, ...], value: Any) -> Callable[[Any], None]:
    def apply(document: Any) -> None:
        for step in path[:-1]:
            document = document[step]
        document[path[-1]] = value

    return apply


MODEL = ("learner", "gradient_booster", "model")
TREE = (*MODEL, "trees", 0)


@pytest.mark.parametrize(
    ("forge", "said"),
    [
        (change((*TREE, "left_children", 0), 0), "reached twice"),
        (change((*TREE, "left_children", 0), 10**9), "is not there"),
        (change((*TREE, "right_children", 0), -1), "has one child"),
        (change((*TREE, "split_indices", 0), 5), "a feature that the model does not have"),
        (change((*TREE, "split_conditions"), [0.0]), "differ in length"),
        (change((*TREE, "split_conditions", 0), float("nan")), "NaN or infinite"),
        (change((*TREE, "left_children"), "x"), "not a model that XGBoost could have saved"),
        (change((*TREE, "sum_hessian"), [1.0]), "differ in length"),
        (change((*TREE, "tree_param", "num_nodes"), "3"), "differ in length"),
        (change(("learner", "attributes"), {"best_iteration": "-2"}), "-2 the best iteration"),
        (change((*TREE, "tree_param"), {}), "not a model that XGBoost could have saved"),
        (change((*MODEL, "tree_info", 0), 7), "for output 7 of 1"),
        (change((*MODEL, "trees"), []), "0 trees"),
        (change(("learner", "learner_model_param", "num_target"), "999999999"), "outputs"),
        (change(("learner", "learner_model_param", "base_score"), "[[]"), "XGBoost could have"),
        (change(("learner", "objective"), {"name": "mine"}), "objective 'mine'"),
        (change(("learner",), 3), 'no "learner"'),
    ],
    ids=[
        "cycle", "outside", "half", "feature", "length", "nan", "text", "unread", "nodes", "best",
        "param", "output", "empty", "many", "base", "objective", "learner",
    ],
)  # fmt: skip
def test_a_forged_model_is_refused_before_xgboost_sees_it(
    build: Build, trained: Path, tmp_path: Path, forge: Callable[[Any], None], said: str
) -> None:
    document = json.loads((trained / "squared.json").read_text())
    forge(document)
    (tmp_path / "model.json").write_text(json.dumps(document))
    assert said in refusal(build, tmp_path / "model.json").message


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"[" * 100_000, "neither JSON nor UBJSON"),
        (b'{"a":' * 100_000, "not a readable XGBoost model"),
        (b'{"learner": {}, "learner": {}}', "a key is there twice"),
        (b"{L" + bytes(7) + b"\x01a" + b"[" * 100_000, "nested deeper"),
        (b"{L" + bytes(7) + b"\x01a" + b"[$Z#L\x7f" + bytes(7), "unknown array of 'Z'"),
        (b"{L" + bytes(7) + b"\x01a" + b"[$d#L\x7f" + bytes(7), "in the middle of a value"),
        (b"{L" + bytes(7) + b"\x01a" + b"[$d#L\xff" + bytes(7), "a length of"),
        (b"hello", "neither JSON nor UBJSON"),
        (b"", "neither JSON nor UBJSON"),
    ],
    ids=["list", "deep", "twice", "deep-ubj", "bomb", "short", "negative", "text", "empty"],
)
def test_a_hostile_file_is_refused(build: Build, tmp_path: Path, data: bytes, said: str) -> None:
    (tmp_path / "model.json").write_bytes(data)
    assert said in refusal(build, tmp_path / "model.json").message


@pytest.mark.parametrize("form", ["json", "ubj"])
def test_a_file_cut_short_is_refused(
    build: Build, trained: Path, tmp_path: Path, form: str
) -> None:
    data = (trained / f"squared.{form}").read_bytes()
    (tmp_path / f"model.{form}").write_bytes(data[: len(data) // 2])
    error = refusal(build, tmp_path / f"model.{form}")
    assert "not a readable XGBoost model" in error.message


@pytest.mark.parametrize(
    ("params", "said"),
    [
        (
            {"inputs": [FEATURES | {"shape": [-1, 6]}]},
            "'features' is FP32 [-1, 5] in the model, FP32 [-1, 6] in the manifest",
        ),
        ({"inputs": [FEATURES | {"datatype": "FP64"}]}, "FP64 [-1, 5] in the manifest"),
        ({"outputs": [output(4)]}, "'answer' is FP32 [-1, 3] in the model"),
        ({"inputs": []}, "one tensor of inputs, the manifest declares 0"),
    ],
    ids=["columns", "datatype", "classes", "count"],
)
def test_a_signature_that_differs_is_refused(
    build: Build, trained: Path, params: dict[str, Any], said: str
) -> None:
    assert said in refusal(build, trained / "softprob.json", 3, **params).message


def test_the_model_is_plain_onnx_that_runs_from_opset_17(build: Build, trained: Path) -> None:
    model = onnx.load(imported(build, trained / "softprob.json", 3).outputs["model"])
    assert {(entry.domain, entry.version) for entry in model.opset_import} == {
        ("", 17),
        ("ai.onnx.ml", 3),
    }
    assert [node.op_type for node in model.graph.node] == ["TreeEnsembleRegressor", "Softmax"]


def test_the_shipped_recipe_passes_its_gate(build: Build) -> None:
    spec = load_project(MANIFESTS).models["diabetes", "1.0.0"].spec
    signature = {
        side: [{"name": t.name, "datatype": t.datatype, "shape": list(t.shape)} for t in tensors]
        for side, tensors in (("inputs", spec.inputs), ("outputs", spec.outputs))
    }
    data = MANIFESTS / "data" / "diabetes" / "1.0.0"
    source = MANIFESTS / "models" / str(spec.source.path)
    inputs = {"source": source, "evaluation": data / "evaluation.npz"}
    result = build("xgboost", "import", inputs, signature)
    assert result.metadata["agreement"]["data"] == "evaluation"
    request = {
        "engine": "onnxruntime",
        "task": spec.task,
        "labels": "label",
        "outputs": [{"name": "progression"}],
        "latency": False,
        "goldenTolerance": {"absolute": 0.01, "relative": 0.001},
    }
    inputs = {
        "model": result.outputs["model"],
        "evaluation": data / "evaluation.npz",
        "golden": data / "golden.npz",
    }
    report = build("onnx", "evaluate", inputs, request).metadata
    assert report["metrics"]["mae"] <= spec.gates["mae"].max
    assert report["golden"]["problems"] == []
