"""The recipes of `manifests/`: what they ship, what they ask, and their data, kept apart."""

from __future__ import annotations

import re
from functools import cache
from hashlib import sha256
from typing import TYPE_CHECKING

import numpy as np
import pytest

from edgectl.engine.labels import read_samples
from edgectl.engine.npz import read_npz
from edgectl.manifest.load import load_project
from tests.support.builders import MANIFESTS
from tests.support.tracked import tracked

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from edgectl.manifest.model import Model

MODELS = load_project(MANIFESTS).models
RECIPES = [pytest.param(model, id=f"{name}-{version}") for (name, version), model in MODELS.items()]
MOST_BYTES = 20_000_000
MOST_GOLDEN_BYTES = 200_000
MOST_GOLDEN_ROWS = 32
PLAIN = {".yaml", ".py", ".csv", ".md"}


def data_file(relative: str) -> Path:
    return (MANIFESTS / "models" / relative).resolve()


@cache
def arrays_of(path: Path) -> dict[str, NDArray[np.generic]]:
    return dict(read_npz(path))


def rows_of(model: Model, relative: str) -> list[str]:
    """A digest of each row of the inputs; equal rows have equal ones, whatever else is beside."""
    arrays = arrays_of(data_file(relative))
    inputs = [np.ascontiguousarray(arrays[tensor.name]) for tensor in model.spec.inputs]
    return [
        sha256(b"".join(values[row].tobytes() for values in inputs)).hexdigest()
        for row in range(len(inputs[0]))
    ]


def test_binaries_are_small_enough_for_a_clone() -> None:
    binaries = [path for path in tracked("manifests") if path.suffix not in PLAIN]
    assert binaries
    assert sum(path.stat().st_size for path in binaries) < MOST_BYTES


@pytest.mark.parametrize("model", RECIPES)
def test_splits_share_no_row(model: Model) -> None:
    spec = model.spec
    assert spec.calibration is not None
    assert spec.evaluation is not None
    calibration = set(rows_of(model, spec.calibration.path))
    evaluation = set(rows_of(model, spec.evaluation.path))
    assert not calibration & evaluation
    assert not set(rows_of(model, spec.golden.path)) & (calibration | evaluation)


@pytest.mark.parametrize("model", RECIPES)
def test_evaluation_rows_are_not_repeated(model: Model) -> None:
    """A row that counts twice makes a metric look surer than it is."""
    assert model.spec.evaluation is not None
    rows = rows_of(model, model.spec.evaluation.path)
    assert len(set(rows)) >= 0.98 * len(rows)


@pytest.mark.parametrize("model", RECIPES)
def test_a_gate_holds_the_quality(model: Model) -> None:
    assert model.spec.gates
    for gate in model.spec.gates.values():
        assert gate.min is not None or gate.max is not None
        assert gate.max_drop is not None or gate.max_rise is not None


@pytest.mark.parametrize("model", RECIPES)
def test_golden_data_are_few_and_whole(model: Model) -> None:
    path = data_file(model.spec.golden.path)
    arrays = arrays_of(path)
    named = {tensor.name for tensor in (*model.spec.inputs, *model.spec.outputs)}
    assert named == set(arrays)
    assert path.stat().st_size < MOST_GOLDEN_BYTES
    assert {len(values) for values in arrays.values()} <= set(range(1, MOST_GOLDEN_ROWS + 1))
    for tensor in (*model.spec.inputs, *model.spec.outputs):
        shape = arrays[tensor.name].shape
        assert len(shape) == len(tensor.shape)
        assert all(want in (-1, have) for want, have in zip(tensor.shape, shape, strict=True))


@pytest.mark.parametrize("model", RECIPES)
def test_data_hold_finite_rows_of_the_declared_inputs(model: Model) -> None:
    assert model.spec.calibration is not None
    assert model.spec.evaluation is not None
    for relative in (model.spec.calibration.path, model.spec.evaluation.path):
        arrays = arrays_of(data_file(relative))
        for tensor in model.spec.inputs:
            values = arrays[tensor.name]
            assert len(values.shape) == len(tensor.shape)
            if values.dtype.kind == "f":
                assert np.isfinite(values).all()


@pytest.mark.parametrize(
    "folder", sorted((MANIFESTS / "samples").iterdir()), ids=lambda folder: str(folder.name)
)
def test_samples_are_labelled_and_all_listed(folder: Path) -> None:
    samples = read_samples(folder)
    listed = {sample.file.name for sample in samples}
    beside = {"labels.csv", "boxes.json"}
    assert listed == {path.name for path in folder.iterdir()} - beside


def test_no_file_names_the_machine_that_it_was_made_on() -> None:
    """Exporters leave stack traces with paths behind."""
    path_of_a_machine = re.compile(rb"/(?:home|root|tmp|Users)/[\w.-]+")
    for file in tracked("manifests"):
        if file.is_file() and file.suffix not in {".png", ".jpg", ".npz"}:
            found = path_of_a_machine.search(file.read_bytes())
            assert found is None, f"{file.name} holds {found[0]!r}"
