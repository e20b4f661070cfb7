"""The TensorFlow builder, on models that its own TensorFlow wrote."""

from __future__ import annotations

import json
import subprocess
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest

from edgectl.build.builder import find_builder
from edgectl.build.toolchain import prepare
from edgectl.errors import ModelError

if TYPE_CHECKING:
    from edgectl.build.runner import Result
    from tests.builders.conftest import Build

pytestmark = pytest.mark.slow  # making the toolchains takes minutes, once
SCRIPT = Path(__file__).with_name("tensorflow_sources.py")


def tensor(name: str, shape: list[int], datatype: str = "FP32") -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": shape}


SIGNATURES = {
    "cnn": {"inputs": [tensor("image", [-1, 16, 16, 3])], "outputs": [tensor("scores", [-1, 4])]},
    "lstm": {"inputs": [tensor("steps", [-1, 12, 5])], "outputs": [tensor("scores", [-1, 3])]},
    "conv1d": {"inputs": [tensor("steps", [-1, 12, 5])], "outputs": [tensor("scores", [-1, 3])]},
}
PLAIN = {"inputs": [tensor("x", [-1, 4])], "outputs": [tensor("y", [-1, 4])]}


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sources")
    python = prepare(find_builder("tensorflow"))
    subprocess.run([python, SCRIPT, folder], check=True, capture_output=True)
    return folder


def answers(path: Path, rows: np.ndarray) -> np.ndarray:
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (result,) = session.run(None, {session.get_inputs()[0].name: rows})
    return np.asarray(result)


def imported(build: Build, source: Path, params: dict[str, Any]) -> Result:
    return build("tensorflow", "import", {"source": source}, params)


def refusal(build: Build, source: Path, params: dict[str, Any]) -> ModelError:
    with pytest.raises(ModelError) as caught:
        imported(build, source, params)
    assert caught.value.hint
    return caught.value


@pytest.mark.parametrize(
    "source",
    [
        *("cnn", "cnn.keras", "cnn.tflite", "lstm", "lstm.keras"),
        *("conv1d", "conv1d.keras", "conv1d.tflite"),
    ],
)
def test_the_import_answers_as_its_source(build: Build, sources: Path, source: str) -> None:
    name = source.split(".")[0]
    result = imported(build, sources / source, SIGNATURES[name])
    path = result.outputs["model"]
    model = onnx.load(path)
    assert [value.name for value in model.graph.input] == [SIGNATURES[name]["inputs"][0]["name"]]
    assert [value.name for value in model.graph.output] == ["scores"]
    assert result.metadata["agreement"]["maxDifference"] < 1e-3
    data = np.load(sources / "inputs.npz")
    np.testing.assert_allclose(answers(path, data[f"{name}_in"]), data[f"{name}_out"], atol=1e-4)


@pytest.mark.parametrize("source", ["cnn", "lstm.keras", "conv1d.tflite"])
def test_the_same_source_gives_the_same_bytes(build: Build, sources: Path, source: str) -> None:
    signature = SIGNATURES[source.split(".")[0]]
    first, second = (imported(build, sources / source, signature).outputs["model"] for _ in "12")
    assert first.read_bytes() == second.read_bytes()


def test_a_keras_2_file_is_read_too(build: Build, sources: Path) -> None:
    result = imported(build, sources / "cnn.h5", SIGNATURES["cnn"])
    assert result.metadata["source"] == "Keras .h5"


def test_an_unknown_signature_is_refused_with_those_there_are(build: Build, sources: Path) -> None:
    error = refusal(build, sources / "several", PLAIN)
    assert "no signature 'serving_default'; it has 'one', 'two'" in error.message


@pytest.mark.parametrize(
    ("source", "operator"), [("write", "WriteFile"), ("python", "EagerPyFunc|PyFunc")]
)
def test_a_graph_that_acts_outside_is_refused_unloaded(
    build: Build, sources: Path, source: str, operator: str
) -> None:
    error = refusal(build, sources / source, PLAIN)
    assert any(f"operator {name} " in error.message for name in operator.split("|"))
    assert "trustCode" in str(error.hint)
    assert not (sources / "exploded").exists()


def test_weights_that_are_not_finite_are_refused(build: Build, sources: Path) -> None:
    assert "NaN or infinite values, 1 of 4" in refusal(build, sources / "ill", PLAIN).message


def test_a_lambda_layer_is_refused(build: Build, sources: Path) -> None:
    signature = {"inputs": [tensor("steps", [-1, 4])], "outputs": [tensor("y", [-1, 4])]}
    error = refusal(build, sources / "lambda.keras", signature)
    assert "'sneaky' is a Lambda layer, which holds Python code" in error.message
    result = imported(build, sources / "lambda.keras", signature | {"trustCode": True})
    rows = np.ones((2, 4), np.float32)
    np.testing.assert_allclose(answers(result.outputs["model"], rows), rows * 2)


def test_a_function_from_elsewhere_is_refused(build: Build, sources: Path, tmp_path: Path) -> None:
    target = tmp_path / "model.keras"
    with zipfile.ZipFile(sources / "cnn.keras") as source, zipfile.ZipFile(target, "w") as copy:
        for name in source.namelist():
            data = source.read(name)
            if name == "config.json":
                config = json.loads(data)
                config["config"]["layers"][1]["module"] = "keras.utils"
                config["config"]["layers"][1]["class_name"] = "get_file"
                data = json.dumps(config).encode()
            copy.writestr(name, data)
    assert "of module keras.utils" in refusal(build, target, SIGNATURES["cnn"]).message


def test_a_zip_bomb_is_refused(build: Build, sources: Path, tmp_path: Path) -> None:
    target = tmp_path / "model.keras"
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("config.json", "{}")
        with archive.open("model.weights.h5", "w", force_zip64=True) as file:
            for _ in range(4200):
                file.write(bytes(1 << 20))
    assert "unpacks to" in refusal(build, target, SIGNATURES["cnn"]).message


@pytest.mark.parametrize(
    ("source", "keep"),
    [
        *(("cnn.tflite", keep) for keep in (4, 20, 400, -100)),
        *((archive, 400) for archive in ("cnn.keras", "cnn.h5")),
    ],
)
def test_a_cut_file_is_refused(
    build: Build, sources: Path, tmp_path: Path, source: str, keep: int
) -> None:
    target = tmp_path / source
    target.write_bytes((sources / source).read_bytes()[:keep])
    refusal(build, target, SIGNATURES["cnn"])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"inputs": [tensor("image", [-1, 8, 8, 3])]}, r"\[-1, 16, 16, 3\] in the model"),
        ({"outputs": [tensor("a", [-1, 4]), tensor("b", [-1, 4])]}, "declares 'a', 'b'"),
        ({"inputs": [tensor("image", [-1, 16, 16, 3], "UINT8")]}, "float32"),
    ],
    ids=["shape", "count", "datatype"],
)
def test_a_signature_that_differs_is_refused(
    build: Build, sources: Path, change: dict[str, Any], said: str
) -> None:
    with pytest.raises(ModelError, match=said):
        imported(build, sources / "cnn", SIGNATURES["cnn"] | change)
