"""Every backend, engine by engine, does what a backend must, on a model that was trained.

The requests are those of a plan over a project with the shipped models and profiles.
"""

from __future__ import annotations

import subprocess
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import yaml
from onnx import helper

import edgectl
from edgectl.build import toolchain
from edgectl.build.builder import find_builders
from edgectl.build.evaluation import require_complete
from edgectl.manifest.profiles import profile_files
from tests.builders.models import dense, save
from tests.support import conformance, tflite
from tests.support.conformance import Chain

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.slow  # making the toolchains takes minutes, once
BACKENDS = {engine: each for each in find_builders() for engine in each.engines}
TARGETS = {
    yaml.safe_load(path.read_bytes())["spec"]["engine"]["name"]: path.stem
    for path in profile_files()
}
"""A shipped profile for each engine."""
MODELS = {"coreml": "glyphs"}
"""What each engine is tried on: `digits`, ONNX, but where only PyTorch programs are converted."""
ELSEWHERE = {"coreml", "tensorrt"}
"""Engines that are on the device alone."""
_ANSWER = """
import json, sys
from pathlib import Path
import numpy as np
from edgectl.engine.batches import infer
from edgectl.engine.errors import EngineUnavailableError
from edgectl.engine.npz import read_npz
from edgectl.engine.session import load_session

model, engine, golden, answers = sys.argv[1:]
try:
    session = load_session(Path(model), engine=engine)
except EngineUnavailableError as error:
    sys.exit(f"unavailable: {error}")
arrays = infer(session, read_npz(Path(golden), max_bytes=1 << 26))
np.savez(answers, **arrays)
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    wanted: dict[str, list[str]] = {}
    for engine in BACKENDS:
        wanted.setdefault(MODELS.get(engine, "digits"), []).append(TARGETS[engine])
    return conformance.make_project(tmp_path_factory.mktemp("project"), wanted)


@pytest.fixture(scope="module")
def chain(project: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Chain]:
    @cache
    def chain(engine: str) -> Chain:
        work = tmp_path_factory.mktemp(engine)
        return Chain.of(project, MODELS.get(engine, "digits"), TARGETS[engine], work)

    return chain


def test_each_engine_has_a_backend_and_a_profile_that_it_is_tried_for() -> None:
    assert set(BACKENDS) == set(TARGETS)


@pytest.mark.parametrize("engine", BACKENDS)
def test_makes_a_model_and_says_how_far_it_is(chain: Callable[[str], Chain], engine: str) -> None:
    line = chain(engine)
    last = line.steps[-1]
    assert line.builder(last).name == BACKENDS[engine].name
    result = line.result(last)
    assert conformance.made(result).exists()
    conformance.check_progress(line.progress[last.key])


@pytest.mark.parametrize("engine", BACKENDS)
def test_makes_the_same_bytes_elsewhere(
    chain: Callable[[str], Chain], engine: str, tmp_path: Path
) -> None:
    line = chain(engine)
    last = line.steps[-1]
    conformance.check_same_elsewhere(
        line.builder(last), line.request(last), line.result(last), tmp_path
    )


def answers(chain: Chain, engine: str, work: Path) -> dict[str, Any] | str:
    """What the engine itself gives for the golden inputs, in the backend's environment; why not."""
    (work / "edgectl").symlink_to(Path(edgectl.__file__).parent)
    builder = chain.builder(chain.steps[-1])
    golden = chain.model.golden.path
    assert golden is not None
    model = conformance.made(chain.result(chain.steps[-1]))
    done = subprocess.run(
        [toolchain.prepare(builder), "-c", _ANSWER, model, engine, golden, work / "answers.npz"],
        env={"PYTHONPATH": str(work), "PYTHONWARNINGS": "ignore", "HOME": str(work)},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        return done.stderr.strip().splitlines()[-1]
    with np.load(work / "answers.npz") as arrays:
        return dict(arrays)


@pytest.mark.parametrize("engine", BACKENDS)
def test_what_it_made_reloads_and_answers_as_the_source_did(
    chain: Callable[[str], Chain], engine: str, tmp_path: Path
) -> None:
    line = chain(engine)
    found = answers(line, engine, tmp_path)
    if isinstance(found, str):
        assert engine in ELSEWHERE, found
        assert found.startswith("unavailable: ")
        return
    assert line.model.golden.path is not None
    (output,) = line.model.outputs
    with np.load(line.model.golden.path) as arrays:
        expected = arrays[output.name]
    answer = found[output.name]
    assert answer.shape == expected.shape
    assert (answer.argmax(1) == expected.argmax(1)).all()
    assert (np.corrcoef(answer, expected).diagonal(len(answer)) > 0.98).all()


@pytest.mark.parametrize("engine", BACKENDS)
def test_measures_it_or_says_why_that_is_left_to_the_device(
    chain: Callable[[str], Chain], engine: str
) -> None:
    line = chain(engine)
    report = line.result(line.evaluation).metadata
    require_complete(report, line.builder(line.evaluation).name)
    assert report["sizeBytes"] > 0
    if "deferred" in report:
        assert engine in ELSEWHERE
        assert report["metrics"] == {}
        assert len(report["deferred"].split()) > 5
        assert "evaluate" in BACKENDS[engine].leaves
        return
    assert report["samples"] > 100
    assert report["metrics"]["accuracy"] > 0.95
    assert "golden" in report


@pytest.mark.parametrize("engine", BACKENDS)
def test_a_cancelled_build_ends(chain: Callable[[str], Chain], engine: str, scratch: Path) -> None:
    line = chain(engine)
    last = line.steps[-1]
    conformance.check_cancelled(line.builder(last), line.request(last, "cancelled"), scratch)


@pytest.mark.parametrize("engine", BACKENDS)
def test_refuses_half_a_model(chain: Callable[[str], Chain], engine: str, tmp_path: Path) -> None:
    line = chain(engine)
    last = line.steps[-1]
    request = line.request(last, "half")
    role = "model" if "model" in request.inputs else "source"
    half = conformance.truncated(request.inputs[role], tmp_path)
    conformance.refusal(line.builder(last), request, inputs={role: half})


@pytest.mark.parametrize("engine", BACKENDS)
def test_refuses_a_precision_that_it_cannot_make(
    chain: Callable[[str], Chain], engine: str
) -> None:
    line = chain(engine)
    last = line.steps[-1]
    error = conformance.refusal(
        line.builder(last), line.request(last, "precision"), params={"precision": "fp8"}
    )
    assert "fp8" in error.message


@pytest.mark.parametrize("engine", BACKENDS)
def test_refuses_a_shape_that_the_model_has_not(chain: Callable[[str], Chain], engine: str) -> None:
    line = chain(engine)
    last = line.steps[-1]
    (declared,) = last.params["inputs"]
    other = declared | {"shape": [*declared["shape"][:-1], 7]}
    error = conformance.refusal(
        line.builder(last), line.request(last, "shape"), params={"inputs": [other]}
    )
    assert repr(declared["name"]) in error.message


def odd(directory: Path, engine: str) -> Path:
    """A model with one operator that no engine knows, as the engine's backend takes it."""
    if engine == "tflm":
        path = directory / "odd.tflite"
        path.write_bytes(tflite.unary("SEGMENT_SUM"))
        return path
    node = helper.make_node("Frobnicate", ["x"], ["h"], name="odd_one", domain="com.example")
    model = dense(node)
    model.opset_import.append(helper.make_opsetid("com.example", 1))
    return save(model, directory / "odd.onnx")


@pytest.mark.parametrize("engine", [engine for engine in BACKENDS if engine != "coreml"])
def test_refuses_an_operator_that_the_engine_lacks(
    chain: Callable[[str], Chain], engine: str, tmp_path: Path
) -> None:
    """Of a program of PyTorch's, Core ML's converter says it: tests/builders/test_coreml.py."""
    line = chain(engine)
    last = line.steps[-1]
    params = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 4]}]}
    params["outputs"] = [{"name": "y", "datatype": "FP32", "shape": [-1, 3]}]
    rows = np.random.default_rng(0).normal(size=(32, 4)).astype(np.float32)
    np.savez(tmp_path / "rows.npz", x=rows)
    inputs = {"model": odd(tmp_path, engine), "calibration": tmp_path / "rows.npz"}
    request = line.request(last, "operator")
    error = conformance.refusal(line.builder(last), request, inputs=inputs, params=params)
    assert ("odd_one" if engine != "tflm" else "0 (SEGMENT_SUM)") in error.message
