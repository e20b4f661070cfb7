"""The Core ML builder, on programs made by PyTorch: what it makes, and everything it refuses.

Core ML computes on Apple's systems alone, so what is checked here is the package.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from edgectl.build import toolchain
from edgectl.build.builder import find_builder
from edgectl.errors import ModelError

if TYPE_CHECKING:
    from edgectl.build.runner import Result
    from tests.builders.conftest import Build

pytestmark = pytest.mark.slow  # making the toolchain takes minutes, once

IMAGE = {"name": "image", "datatype": "FP32", "shape": [1, 3, 8, 8]}
SCORES = {"name": "scores", "datatype": "FP32", "shape": [1, 10]}
PARAMS: dict[str, Any] = {
    "format": "pytorch",
    "precision": "fp16",
    "compression": {},
    "engineVersion": ">=7.0",
    "inputs": [IMAGE],
    "outputs": [SCORES],
}
FREE = {
    "inputs": [IMAGE | {"shape": [-1, 3, 8, 8]}],
    "outputs": [SCORES | {"shape": [-1, 10]}],
}
CORE_ML = {"format": "coreml"}
NETWORK = {
    "format": "coreml",
    "inputs": [{"name": "x", "datatype": "FP64", "shape": [4]}],
    "outputs": [{"name": "y", "datatype": "FP64", "shape": [4]}],
}


def python(*arguments: str | Path) -> str:
    """Run the toolchain's own Python, which has torch and coremltools."""
    builder = find_builder("coreml")
    command = [str(toolchain.prepare(builder)), *map(str, arguments)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


SCRIPT = Path(__file__).with_name("coreml_sources.py")


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("sources")
    python(SCRIPT, "sources", directory)
    return directory


@pytest.fixture(scope="module")
def made(build: Build, sources: Path) -> Path:
    """A package of this builder's own."""
    return optimized(build, sources / "fixed.pt2")


@pytest.fixture(scope="module")
def faults(made: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("faults")
    python(SCRIPT, "faults", made, directory)
    return directory


def optimized(build: Build, source: Path, **params: Any) -> Path:
    return package_of(build("coreml", "optimize", {"source": source}, PARAMS | params))


def package_of(result: Result) -> Path:
    return result.outputs["model/model.mlpackage/Manifest.json"].parent


def refusal(build: Build, source: Path, **params: Any) -> str:
    with pytest.raises(ModelError) as caught:
        optimized(build, source, **params)
    assert caught.value.hint
    assert "builder 'coreml'" in caught.value.message
    return caught.value.message


def contents(package: Path) -> dict[str, bytes]:
    files = (path for path in package.rglob("*") if path.is_file())
    return {path.relative_to(package).as_posix(): path.read_bytes() for path in files}


def weight_bytes(package: Path) -> int:
    return (package / "Data/com.apple.CoreML/weights/weight.bin").stat().st_size


def test_a_package_is_the_same_byte_for_byte(build: Build, sources: Path, made: Path) -> None:
    assert contents(made) == contents(optimized(build, sources / "fixed.pt2"))
    manifest = json.loads((made / "Manifest.json").read_text())
    assert manifest["rootModelIdentifier"] in manifest["itemInfoEntries"]
    text = (made / "Data/com.apple.CoreML/model.mlmodel").read_bytes()
    for trace in (b"conversion_date", b"coremltools.version", b"/tmp"):
        assert trace not in text


@pytest.mark.parametrize("source", ["fixed.pt2", "traced.pt", "scripted.pt"])
def test_every_form_of_program_gives_the_declared_signature(
    build: Build, sources: Path, source: str
) -> None:
    result = build("coreml", "optimize", {"source": sources / source}, PARAMS)
    assert result.metadata["kind"] == "mlProgram"
    assert result.metadata["specificationVersion"] == 8
    assert {"conv", "linear", "softmax"} <= set(result.metadata["operators"])
    assert "not compared" in result.metadata["checked"]
    specs = json.loads(python("-c", SPECS, package_of(result)))
    assert specs == [["image", "FP32", [1, 3, 8, 8]], ["scores", "FP32", [1, 10]]]


SPECS = """
import json, sys
from coremltools.models import MLModel
from edgectl.engine.coreml import INT64_KEY, tensor_specs
d = MLModel(sys.argv[1], skip_model_load=True).get_spec().description
wide = frozenset(json.loads(d.metadata.userDefined.get(INT64_KEY, "[]")))
specs = tensor_specs([*d.input, *d.output], wide)
print(json.dumps([[s.name, s.datatype, s.shape] for s in specs]))
"""


@pytest.fixture(autouse=True)
def engine_is_importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))


@pytest.mark.parametrize("source", ["free.pt2", "traced.pt"])
def test_a_free_dimension_stays_free(build: Build, sources: Path, source: str) -> None:
    package = optimized(build, sources / source, **FREE)
    specs = json.loads(python("-c", SPECS, package))
    assert specs[0] == ["image", "FP32", [-1, 3, 8, 8]]


def test_a_free_dimension_of_the_program_may_be_fixed(build: Build, sources: Path) -> None:
    specs = json.loads(python("-c", SPECS, optimized(build, sources / "free.pt2")))
    assert specs[0] == ["image", "FP32", [1, 3, 8, 8]]


def test_int64_is_kept_at_the_boundary(build: Build, sources: Path) -> None:
    """Core ML has INT32 alone; the engine converts, so that one manifest serves all engines."""
    ids = {"name": "ids", "datatype": "INT64", "shape": [1, 12]}
    vector = {"name": "vector", "datatype": "FP32", "shape": [1, 16]}
    package = optimized(build, sources / "ids.pt2", inputs=[ids], outputs=[vector])
    specs = json.loads(python("-c", SPECS, package))
    assert specs == [["ids", "INT64", [1, 12]], ["vector", "FP32", [1, 16]]]


@pytest.mark.parametrize(
    ("params", "operator", "most"),
    [
        ({"precision": "fp32"}, None, 2.1),
        ({"precision": "int8"}, "constexpr_affine_dequantize", 0.9),
        ({"precision": "int4", "engineVersion": ">=8"}, "constexpr_blockwise_shift_scale", 0.8),
        (
            {"compression": {"weights": "palettized", "bits": 4}},
            "constexpr_lut_to_dense",
            0.75,
        ),
        (
            {"compression": {"weights": "sparse", "sparsity": 0.75}},
            "constexpr_sparse_to_dense",
            0.8,
        ),
        (
            {
                "compression": {"weights": "palettized", "bits": 4},
                "precision": "int8",
                "engineVersion": ">=8",
            },
            "constexpr_lut_to_dense",
            0.8,
        ),
    ],
    ids=["fp32", "int8", "int4", "palettized", "sparse", "palettized int8"],
)
def test_weights_are_as_small_as_asked(
    build: Build,
    sources: Path,
    made: Path,
    params: dict[str, Any],
    operator: str | None,
    most: float,
) -> None:
    result = build("coreml", "optimize", {"source": sources / "fixed.pt2"}, PARAMS | params)
    package = package_of(result)
    assert weight_bytes(package) < most * weight_bytes(made)
    if operator is not None:
        assert operator in result.metadata["operators"]
        assert contents(package) == contents(optimized(build, sources / "fixed.pt2", **params))


@pytest.mark.parametrize(
    ("source", "params", "said"),
    [
        ("pickle.pt", {}, "pickle"),
        ("cut.pt2", {}, "not a readable PyTorch archive"),
        ("nan.pt2", {}, "NaN or infinite values (at out.weight)"),
        ("large.pt2", {}, "float16 ends at 65504 (at out.weight)"),
        (
            "svd.pt2",
            {"inputs": [IMAGE | {"shape": [1, 4, 4]}]},
            "does not convert operator 'linalg_svd'",
        ),
        ("small.pt2", {"precision": "int8"}, "no layer of the model has 512 weights"),
        ("fixed.pt2", FREE, "[1, 3, 8, 8] in the program, [-1, 3, 8, 8] in the manifest"),
        ("fixed.pt2", {"inputs": [IMAGE, SCORES]}, "takes 1 inputs, the manifest declares 2"),
        ("traced.pt", {"inputs": []}, "takes 1 inputs, the manifest declares 0"),
        ("fixed.pt2", {"outputs": [SCORES, IMAGE]}, "outputs"),
        ("fixed.pt2", {"outputs": [SCORES | {"shape": [1, 9]}]}, "'scores' is FP32 [1, 10]"),
        (
            "fixed.pt2",
            {"inputs": [IMAGE | {"datatype": "UINT8"}]},
            "no tensor of UINT8 at its boundary (at image)",
        ),
        ("fixed.pt2", {"precision": "bf16"}, "Core ML has no bf16"),
        ("fixed.pt2", {"precision": "int4"}, "int4 weights need Core ML 8 (iOS 18)"),
        ("fixed.pt2", {"engineVersion": ">=99"}, "'>=99' is of no Core ML"),
        (
            "fixed.pt2",
            {"compression": {"weights": "palettized", "bits": 5}},
            "no palettes of 5 bits",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_program_that_cannot_be_a_package_is_refused(
    build: Build, sources: Path, source: str, params: dict[str, Any], said: str
) -> None:
    if source == "small.pt2":
        row = {"name": "x", "datatype": "FP32", "shape": [1, 4]}
        params = params | {"inputs": [row], "outputs": [row | {"name": "y", "shape": [1, 3]}]}
    assert said in refusal(build, sources / source, **params)


def test_onnx_has_no_way_to_core_ml(build: Build, sources: Path) -> None:
    with pytest.raises(ModelError, match="ONNX has no way to Core ML"):
        build("coreml", "optimize", {"model": sources / "fixed.pt2"}, PARAMS)


@pytest.mark.parametrize("precision", ["source", "fp16", "fp32"])
def test_a_core_ml_model_passes_through(build: Build, made: Path, precision: str) -> None:
    package = optimized(build, made, **CORE_ML, precision=precision)
    assert contents(package) == contents(made)


def test_a_single_file_becomes_a_package(build: Build, faults: Path) -> None:
    package = optimized(build, faults / "network.mlmodel", **NETWORK)
    inside = (package / "Data/com.apple.CoreML/model.mlmodel").read_bytes()
    assert inside == (faults / "network.mlmodel").read_bytes()


def test_the_weights_of_a_core_ml_model_can_be_made_smaller(build: Build, made: Path) -> None:
    package = optimized(build, made, **CORE_ML, precision="int8")
    assert weight_bytes(package) < 0.9 * weight_bytes(made)


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("offset.mlpackage", "weights at byte 1099511627776"),
        ("elsewhere.mlpackage", "which is not a file of the package"),
        ("shape.mlpackage", "where its type and shape need"),
        ("cut.mlpackage", "which has"),
        ("escapes.mlpackage", "'../../secret', which is outside the package"),
        ("link.mlpackage", "leads outside"),
        ("nested.mlpackage", "no manifest of a model package"),
        ("garbage.mlpackage", "no Core ML specification"),
        ("empty.mlmodel", "it holds no model"),
        ("compiled.mlmodelc", "compiled model"),
    ],
)
def test_a_broken_or_hostile_package_is_refused(
    build: Build, faults: Path, source: str, said: str
) -> None:
    assert said in refusal(build, faults / source, **CORE_ML)


@pytest.mark.parametrize(
    ("params", "said"),
    [
        ({"inputs": [IMAGE | {"name": "picture"}]}, "inputs are 'image', the manifest declares"),
        ({"inputs": [IMAGE | {"shape": [1, 3, 9, 9]}]}, "'image' is FP32 [1, 3, 8, 8] in"),
        ({"outputs": [SCORES | {"datatype": "INT32"}]}, "'scores' is FP32"),
        ({"engineVersion": ">=6, <7"}, "needs Core ML 7 (iOS 17"),
    ],
    ids=["name", "shape", "datatype", "version"],
)
def test_a_core_ml_model_that_is_not_as_declared_is_refused(
    build: Build, made: Path, params: dict[str, Any], said: str
) -> None:
    assert said in refusal(build, made, **CORE_ML, **params)


def test_a_custom_layer_is_refused(build: Build, faults: Path) -> None:
    message = refusal(build, faults / "custom.mlmodel", **NETWORK)
    assert "class 'AppLayer' of the app" in message


def test_a_network_of_the_old_kind_is_not_compressed(build: Build, faults: Path) -> None:
    message = refusal(build, faults / "network.mlmodel", **NETWORK | {"precision": "int8"})
    assert "only the weights of ML programs" in message


def test_evaluation_is_left_to_the_device(build: Build, made: Path, tmp_path: Path) -> None:
    shutil.copytree(made, tmp_path / "model/model.mlpackage")
    np.savez(tmp_path / "e.npz", image=np.zeros((1, 3, 8, 8), np.float32))
    inputs = {"model": tmp_path / "model", "evaluation": tmp_path / "e.npz"}
    metadata = build("coreml", "evaluate", inputs, {"engine": "coreml"}).metadata
    assert metadata["metrics"] == {}
    assert "Apple's systems only" in metadata["deferred"]
    assert metadata["sizeBytes"] == sum(map(len, contents(made).values()))


def test_the_engine_says_where_it_runs(made: Path) -> None:
    said = python(
        "-c",
        "import sys; from pathlib import Path\n"
        "from edgectl.engine.errors import EngineUnavailableError\n"
        "from edgectl.engine.session import load_session\n"
        "try: load_session(Path(sys.argv[1]), engine='coreml')\n"
        "except EngineUnavailableError as error: print(error)",
        made,
    )
    assert "Core ML predicts on macOS" in said
