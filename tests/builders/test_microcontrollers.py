"""The recipes for microcontrollers, from what was trained to what a board gets."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from edgectl.build.evaluation import report_for
from edgectl.build.gates import violations
from edgectl.engine import transforms
from edgectl.engine.session import load_session
from edgectl.manifest.load import load_project
from tests.support.builders import MANIFESTS

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from edgectl.manifest.model import Model
    from edgectl.manifest.target import Target
    from tests.builders.conftest import Build

pytestmark = pytest.mark.slow  # making the toolchains takes minutes, once
RECIPES = ("keywords", "pump")
TARGET = "arduino-nano-33-ble"


@dataclass(frozen=True)
class Recipe:
    """A model of `manifests/`, with the target that it is made for."""

    model: Model
    target: Target

    @property
    def signature(self) -> Any:
        return self.model.signature()

    def data(self, part: str) -> Path:
        return MANIFESTS / "data" / self.model.metadata.name / "1.0.0" / f"{part}.npz"

    def params(self, **more: Any) -> dict[str, Any]:
        specs = {"inputs": self.signature.inputs, "outputs": self.signature.outputs}
        quantization = self.target.spec.quantization
        calibration = self.model.spec.calibration
        assert quantization is not None
        assert calibration is not None
        return {
            **quantization.model_dump(by_alias=True),
            "precision": "int8",
            "engine": "tflm",
            "format": self.model.spec.source.format,
            "method": calibration.method,
            **{
                role: [
                    {"name": t.name, "datatype": t.datatype, "shape": list(t.shape)}
                    for t in tensors
                ]
                for role, tensors in specs.items()
            },
            **more,
        }


@pytest.fixture(params=RECIPES)
def recipe(request: pytest.FixtureRequest) -> Recipe:
    project = load_project(MANIFESTS)
    return Recipe(project.models[request.param, "1.0.0"], project.targets[TARGET])


def compiled(build: Build, recipe: Recipe) -> dict[str, Any]:
    """The metadata of the compile action, and the model's path as `path`."""
    source = recipe.model.spec.source.path
    assert source is not None
    given = {"source": MANIFESTS / "models" / source, "calibration": recipe.data("calibration")}
    made = build("litert", "optimize", given, recipe.params(engine="litert"))
    limits = recipe.target.spec.limits()
    asked = recipe.params(limits=limits)
    result = build("tflm", "compile", {"model": made.outputs["model"]}, asked)
    return {**result.metadata, "path": result.outputs["model/model.tflite"]}


def test_fits_a_small_board_and_passes_its_gates(build: Build, recipe: Recipe) -> None:
    made = compiled(build, recipe)
    limits = recipe.target.spec.limits()
    assert made["arenaBytes"] < limits["arena"] / 2
    assert made["sizeBytes"] < limits["modelSize"] / 8
    spec = recipe.model.spec
    assert spec.evaluation is not None
    outputs = [
        {"name": t.name, "transforms": [dict(x) for x in t.transforms], "labels": list(t.labels)}
        for t in recipe.signature.outputs
    ]
    files = {role: recipe.data(role) for role in ("evaluation", "golden")}
    asked = {
        "engine": "tflm",
        "task": spec.task,
        "labels": spec.evaluation.labels,
        "outputs": outputs,
        "latency": False,
        "goldenTolerance": dict(recipe.signature.golden_tolerance),
    }
    raw = build("tflm", "evaluate", {"model": made["path"], **files}, asked).metadata
    assert raw["arenaBytes"] == made["arenaBytes"]
    report = report_for(raw, target=TARGET, architecture="arm", precision="int8")
    gates: dict[str, dict[str, float]] = {
        metric: {"min": gate.min} for metric, gate in spec.gates.items() if gate.min is not None
    }
    assert gates
    assert violations(report, gates=gates, limits={}) == ()


def test_what_a_device_is_sent_goes_through_the_declared_preprocessing(
    build: Build, recipe: Recipe
) -> None:
    given, made = recipe.signature.inputs[0], recipe.signature.outputs[0]
    folder = MANIFESTS / "samples" / recipe.model.metadata.name
    with (folder / "labels.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    arrays = [
        transforms.preprocess(given, (folder / row["file"]).read_bytes()).array for row in rows
    ]
    batch = np.stack([array.reshape(given.shape[1:]) for array in arrays])
    labels = np.array([int(row["label"]) for row in rows])
    session = load_session(compiled(build, recipe)["path"], engine="tflm")
    answers = session.run({given.name: batch})[made.name]
    session.close()
    if recipe.model.spec.task == "classification":
        assert float((answers.argmax(axis=1) == labels).mean()) > 0.85
    else:
        errors: NDArray[Any] = ((answers - batch) ** 2).mean(axis=1)
        assert errors[labels == 1].min() > errors[labels == 0].max()


def test_the_parts_of_the_data_share_no_row(recipe: Recipe) -> None:
    seen: set[bytes] = set()
    total = 0
    for part in ("calibration", "evaluation", "golden"):
        with np.load(recipe.data(part), allow_pickle=False) as data:
            rows = data[recipe.signature.inputs[0].name]
        total += len(rows)
        seen |= {row.tobytes() for row in rows}
    assert len(seen) == total
