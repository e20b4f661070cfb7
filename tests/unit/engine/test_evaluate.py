from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from edgectl.engine.errors import EngineError, InputError
from edgectl.engine.evaluate import evaluate_request
from edgectl.engine.session import load_session
from tests.support.models import half_picture, write_halves, write_linear, write_onnx

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def inputs(tmp_path: Path) -> dict[str, Path]:
    pictures = np.stack([half_picture(side) for side in ("left", "right", "left", "right")])
    np.savez(
        tmp_path / "data.npz",
        image=(pictures / np.float32(255)).astype(np.float32)[:, None],
        label=np.array([0, 1, 0, 0]),
        name=np.array(["left", "right", "left", "left"]),
    )
    return {"model": write_halves(tmp_path / "m.onnx"), "evaluation": tmp_path / "data.npz"}


def _params(**changes: Any) -> dict[str, Any]:
    outputs = [{"name": "scores", "labels": ["left", "right"]}]
    return {"labels": "label", "task": "classification", "outputs": outputs, **changes}


def test_metrics_and_measurements(inputs: dict[str, Path]) -> None:
    result = evaluate_request(inputs, _params(runs=5))
    assert result["metrics"]["accuracy"] == 0.75
    assert result["metrics"]["auc"] == pytest.approx(5 / 6, abs=0.01)
    assert result["samples"] == 4
    assert result["sizeBytes"] == inputs["model"].stat().st_size
    assert result["host"]["providers"] == ["CPUExecutionProvider"]
    assert result["measured"]["latency"]["runs"] == 5
    measured = result["measured"]
    assert set(measured) - {"energy"} == {"latency", "loadSeconds", "peakMemoryBytes", "throughput"}
    assert measured["throughput"]["batch"] == 4, "all rows that there are, at most eight"
    assert measured["throughput"]["rowsPerSecond"] > 0


def test_a_source_with_names_of_its_own_is_evaluated_under_the_declared_ones(
    inputs: dict[str, Path], tmp_path: Path
) -> None:
    with np.load(inputs["evaluation"]) as data:
        np.savez(tmp_path / "own.npz", x=data["image"], label=data["label"])
    own = inputs | {"evaluation": tmp_path / "own.npz"}
    outputs = [{"name": "y", "labels": ["left", "right"]}]
    declared = _params(latency=False, inputs=[{"name": "x"}], outputs=outputs, byPosition=True)
    metrics = evaluate_request(own, declared)["metrics"]
    assert metrics == evaluate_request(inputs, _params(latency=False))["metrics"]
    two = declared | {"inputs": [{"name": "x"}, {"name": "z"}]}
    with pytest.raises(EngineError, match="the model's inputs are image; declared are x, z"):
        evaluate_request(own, two)


def test_energy_that_cannot_be_read_is_an_estimate_and_says_so(inputs: dict[str, Path]) -> None:
    measured = evaluate_request(inputs, _params(runs=5, power=10.0))["measured"]
    if measured["energy"]["source"] == "estimate":
        assert measured["energy"]["joules"] == pytest.approx(10.0 * measured["latency"]["p50"])
    else:
        assert measured["energy"]["joules"] > 0


def test_a_row_that_was_calibrated_on_is_not_measured_on(
    inputs: dict[str, Path], tmp_path: Path
) -> None:
    with np.load(inputs["evaluation"]) as data:
        np.savez(tmp_path / "apart.npz", image=data["image"][:2] / 2)
        np.savez(tmp_path / "leak.npz", image=data["image"][1:2])
    evaluate_request(inputs | {"calibration": tmp_path / "apart.npz"}, _params(latency=False))
    with pytest.raises(InputError, match="1 rows of the evaluation data are calibration data too"):
        evaluate_request(inputs | {"calibration": tmp_path / "leak.npz"}, _params(latency=False))


def test_a_metric_of_ones_own(inputs: dict[str, Path], tmp_path: Path) -> None:
    code = tmp_path / "own.py"
    code.write_text(
        "def misses(labels, outputs, inputs):\n"
        "    assert inputs['image'].shape[0] == len(labels)\n"
        "    return (outputs['scores'].argmax(axis=1) != labels).sum()\n"
        "def fails(labels, outputs, inputs):\n    raise ValueError('no')\n"
        "def endless(labels, outputs, inputs):\n    return float('inf')\n"
    )
    files = inputs | {"metric/misses": code}
    found = evaluate_request(files, _params(latency=False, metrics={"misses": "misses"}))
    assert found["metrics"]["misses"] == 1
    assert found["metrics"]["accuracy"] == 0.75
    wrong = (("fails", "ValueError"), ("endless", "gave inf"), ("gone", "AttributeError"))
    for function, said in wrong:
        with pytest.raises(InputError, match=said):
            evaluate_request(files, _params(latency=False, metrics={"misses": function}))


def test_what_is_not_measured_is_deterministic(inputs: dict[str, Path]) -> None:
    first, second = (evaluate_request(inputs, _params(latency=False)) for _ in range(2))
    assert first == second
    assert "measured" not in first
    assert (
        evaluate_request(inputs, _params(latency=False, labels="name"))["metrics"]
        == (first["metrics"])
    )


def test_golden_data_are_checked_within_their_tolerance(
    inputs: dict[str, Path], tmp_path: Path
) -> None:
    with np.load(inputs["evaluation"]) as data:
        images = data["image"]
    session = load_session(inputs["model"])
    scores = session.run({"image": images})["scores"]
    session.close()
    np.savez(tmp_path / "golden.npz", image=images, scores=scores + np.float32(0.25))
    golden = inputs | {"golden": tmp_path / "golden.npz"}

    def problems(**params: Any) -> list[str]:
        result = evaluate_request(golden, _params(latency=False, **params))
        return list(result["golden"]["problems"])

    assert problems(goldenTolerance={"absolute": 0.3}) == []
    (problem,) = problems(goldenTolerance={"absolute": 0.2})
    assert problem.startswith("output 'scores' is ")
    assert "differs by 0.25, allowed is 0.2" in problem
    assert problems() == problems(), "a default tolerance holds, and the sentences are the same"
    assert problems() != []
    assert "golden" not in evaluate_request(inputs, _params(latency=False))


def test_golden_data_without_an_input_are_refused(inputs: dict[str, Path], tmp_path: Path) -> None:
    np.savez(tmp_path / "golden.npz", scores=np.zeros((4, 2), np.float32))
    with pytest.raises(InputError, match="image"):
        evaluate_request(inputs | {"golden": tmp_path / "golden.npz"}, _params(latency=False))


def test_regression(tmp_path: Path) -> None:
    rows = np.arange(30, dtype=np.float32).reshape(10, 3)
    wanted = rows @ np.array([[1, 2], [3, 4], [5, 6]]) + 0.5
    np.savez(tmp_path / "d.npz", x=rows, y_true=wanted)
    result = evaluate_request(
        {"model": write_linear(tmp_path / "m.onnx"), "evaluation": tmp_path / "d.npz"},
        {"labels": "y_true", "task": "regression", "outputs": [{"name": "y"}], "latency": False},
    )
    assert result["metrics"]["mae"] == pytest.approx(0.5, abs=1e-4)
    assert result["metrics"]["rmse"] == pytest.approx(0.5, abs=1e-4)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"labels": "answer"},
            "no array of labels 'answer', which spec.evaluation.labels says; there are: image, ",
        ),
        ({"outputs": [{"name": "logits"}]}, "the model has no output 'logits'; it has: scores"),
        ({"task": "poetry"}, "task 'poetry' has no metrics"),
        ({"labels": "name", "outputs": [{"name": "scores"}]}, "label 'left' is not one of"),
    ],
)
def test_wrong_requests(inputs: dict[str, Path], changes: dict[str, Any], message: str) -> None:
    with pytest.raises(EngineError) as caught:
        evaluate_request(inputs, _params(latency=False, **changes))
    assert message in str(caught.value)


def test_data_of_the_wrong_shape_is_refused(inputs: dict[str, Path]) -> None:
    np.savez(inputs["evaluation"], image=np.zeros((4, 1, 9, 9), np.float32), label=np.zeros(4, int))
    with pytest.raises(InputError, match=r"shape \[4, 1, 9, 9\], but the model takes"):
        evaluate_request(inputs, _params(latency=False))
    np.savez(inputs["evaluation"], image=np.zeros((4, 1, 8, 8), np.float32), label=np.zeros(3, int))
    with pytest.raises(InputError, match="3 labels for 4 rows"):
        evaluate_request(inputs, _params(latency=False))


def test_a_model_that_gives_nan_is_refused(tmp_path: Path) -> None:
    from onnx import helper

    model = write_onnx(
        tmp_path / "m.onnx",
        [helper.make_node("Log", ["x"], ["y"])],
        inputs={"x": ["N", 2]},
        outputs={"y": ["N", 2]},
    )
    np.savez(tmp_path / "d.npz", x=np.full((2, 2), -1, np.float32), label=np.array([0, 1]))
    with pytest.raises(EngineError, match="output 'y' holds NaN"):
        evaluate_request(
            {"model": model, "evaluation": tmp_path / "d.npz"},
            _params(latency=False, outputs=[{"name": "y"}]),
        )


def test_as_a_program(inputs: dict[str, Path], tmp_path: Path) -> None:
    request = {
        "inputs": {role: str(path) for role, path in inputs.items()},
        "params": _params(latency=False),
        "output": str(tmp_path / "result.json"),
    }
    file = tmp_path / "request.json"
    command = [sys.executable, "-m", "edgectl.engine.evaluate", str(file)]
    file.write_text(json.dumps(request))
    subprocess.run(command, check=True)
    assert json.loads((tmp_path / "result.json").read_text())["metrics"]["accuracy"] == 0.75
    inputs["model"].write_bytes(b"damaged")
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
