"""The TensorFlow Lite Micro builder: refusals, measured memory, and sources that compile."""

from __future__ import annotations

import re
import shutil
import subprocess
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from edgectl.build.builder import find_builder
from edgectl.build.toolchain import prepare
from edgectl.engine.errors import EngineError
from edgectl.engine.session import load_session
from edgectl.engine.tflm import open_interpreter
from edgectl.engine.tflm_file import read_model
from edgectl.engine.tflm_operators import OPERATORS
from edgectl.errors import ModelError
from tests.support import tflite
from tests.support.builders import MANIFESTS
from tests.support.tflm_headers import LAYOUTS, write_headers

if TYPE_CHECKING:
    from pathlib import Path

    from edgectl.build.runner import Progress, Result
    from tests.builders.conftest import Build

pytestmark = pytest.mark.slow  # making the toolchain takes a while, once
ROWS = np.random.default_rng(1).normal(size=(40, 16)).astype(np.float32)
DENSE = tflite.dense(tflite.network(), ROWS)
CONVOLUTION = tflite.convolution()
ENDS = {
    "dense": (("features", [-1, 16]), ("result", [-1, 4])),
    "convolution": (("image", [-1, 12, 12, 1]), ("scores", [-1, 4])),
    "unary": (("x", [-1, 4]), ("y", [-1, 4])),
}
_WARNINGS = ("-Wall", "-Wextra", "-Wpedantic", "-Werror")


def params(kind: str, **more: Any) -> dict[str, Any]:
    (given, taken), (made, gave) = ENDS[kind]
    return {
        "engine": "tflm",
        "precision": "int8",
        "inputs": [{"name": given, "datatype": "FP32", "shape": taken}],
        "outputs": [{"name": made, "datatype": "FP32", "shape": gave}],
        **more,
    }


def compiled(
    build: Build,
    content: bytes,
    folder: Path,
    kind: str = "dense",
    progress: list[Progress] | None = None,
    **more: Any,
) -> Result:
    path = folder / "model.tflite"
    path.write_bytes(content)
    return build("tflm", "compile", {"model": path}, params(kind, **more), progress)


def refusal(
    build: Build, content: bytes, folder: Path, kind: str = "dense", **more: Any
) -> ModelError:
    with pytest.raises(ModelError) as caught:
        compiled(build, content, folder, kind, **more)
    assert caught.value.hint
    return caught.value


def project(result: Result, folder: Path) -> Path:
    """The directory as it lies in the model, put together from the result."""
    for name, path in result.outputs.items():
        target = folder / name.removeprefix("model/")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    return folder


def test_emits_the_model_and_a_project_for_each_family_of_boards(
    build: Build, tmp_path: Path
) -> None:
    progress: list[Progress] = []
    result = compiled(build, DENSE, tmp_path, progress=progress)
    assert set(result.outputs) == {
        f"model/{name}"
        for name in (
            "model.tflite", "library.properties", "examples/model/model.ino",
            "src/model/model_data.h", "src/model/model_data.cc", "src/model/op_resolver.h",
            "src/model/inference.h", "src/model/inference.cc",
            "esp-idf/CMakeLists.txt", "esp-idf/main/CMakeLists.txt",
            "esp-idf/main/idf_component.yml", "esp-idf/main/main.cc",
            "zephyr/CMakeLists.txt", "zephyr/prj.conf", "zephyr/src/main.cc",
        )
    }  # fmt: skip
    assert result.outputs["model/model.tflite"].read_bytes() == DENSE
    assert result.metadata["operators"] == ["FULLY_CONNECTED"]
    assert result.metadata["sizeBytes"] == len(DENSE)
    fractions = [item.fraction for item in progress]
    assert fractions == sorted(fractions)
    assert len(fractions) >= 3


def test_the_same_request_gives_the_same_bytes(build: Build, tmp_path: Path) -> None:
    first, second = (
        compiled(build, CONVOLUTION, tmp_path, "convolution", limits={"arena": 1 << 16})
        for _ in range(2)
    )
    assert first.metadata == second.metadata
    assert {name: path.read_bytes() for name, path in first.outputs.items()} == {
        name: path.read_bytes() for name, path in second.outputs.items()
    }
    for path in first.outputs.values():
        assert str(tmp_path).encode() not in path.read_bytes()


@pytest.mark.parametrize("content", [DENSE, CONVOLUTION], ids=["dense", "convolution"])
def test_the_resolver_has_exactly_the_operators_of_the_model(
    build: Build, tmp_path: Path, content: bytes
) -> None:
    kind = "dense" if content == DENSE else "convolution"
    result = compiled(build, content, tmp_path, kind)
    text = result.outputs["model/src/model/op_resolver.h"].read_text()
    wanted = {OPERATORS[operator.name][0] for operator in read_model(content, "it").operators}
    added = re.findall(r"resolver\.(Add\w+)\(\)", text)
    assert set(added) == wanted
    assert len(added) == len(wanted)
    assert f"MicroMutableOpResolver<{len(wanted)}>" in text


def test_the_measured_arena_is_enough_and_the_next_smaller_is_not(
    build: Build, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    result = compiled(build, CONVOLUTION, tmp_path, "convolution")
    arena = result.metadata["arenaBytes"]
    open_interpreter(CONVOLUTION, arena, "it").invoke()
    with pytest.raises(EngineError, match="does not load"):
        open_interpreter(CONVOLUTION, arena - 32, "it")
    capfd.readouterr()
    activations = 2 * 6 * 6 * 8
    assert activations < arena < activations + 8192
    header = result.outputs["model/src/model/inference.h"].read_text()
    reserved = arena + result.metadata["kernelScratchBytes"]["cmsisNn"]
    assert f"constexpr size_t kArenaBytes = {reserved};" in header


SEARCH = """
import sys
from pathlib import Path
sys.path[:0] = sys.argv[1:3]
import measuring
from edgectl.engine.tflm_file import read_model
content = Path(sys.argv[3]).read_bytes()
model = read_model(content, "it")
tried = [measuring._attempt(content, model, arena) for arena in range(1024, 3072, 16)]
print(sum("ended by signal" in (said or "") for said in tried), tried[-1])
"""


def test_an_arena_in_which_the_interpreter_crashes_is_too_small(tmp_path: Path) -> None:
    model = tmp_path / "model.tflite"
    model.write_bytes(CONVOLUTION)
    builder = find_builder("tflm")
    paths = [MANIFESTS.parent, builder.directory, model]
    ran = subprocess.run(
        [prepare(builder), "-c", SEARCH, *paths], check=True, capture_output=True, text=True
    )
    crashes, last = ran.stdout.split()
    assert int(crashes) > 0
    assert last == "None"


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("standard", ["c++14", "c++20"])
def test_the_sources_compile_link_and_run(
    build: Build, tmp_path: Path, layout: str, standard: str
) -> None:
    content = tflite.unary("RESHAPE")
    result = compiled(build, content, tmp_path, "unary")
    made = project(result, tmp_path / "project")
    headers = write_headers(tmp_path / "headers", layout, ["AddReshape"])
    (tmp_path / "main.cc").write_text(_HOST_MAIN)
    sketch = tmp_path / "sketch.cc"
    sketch.write_text('#include "Arduino.h"\n' + (made / "examples/model/model.ino").read_text())
    boards = [sketch, made / "esp-idf/main/main.cc", made / "zephyr/src/main.cc"]
    include = [f"-I{made / 'src'}", f"-I{headers}", f"-std={standard}", "-O1"]
    for source in boards:
        _gcc(*_WARNINGS, *include, "-c", source, "-o", tmp_path / f"{source.stem}.o")
    sources = [tmp_path / "main.cc", *sorted((made / "src").rglob("*.cc"))]
    _gcc(*_WARNINGS, *include, *sources, "-o", tmp_path / "program", "-lm")
    done = subprocess.run(
        [tmp_path / "program", tmp_path / "bytes"], capture_output=True, check=False
    )
    assert done.returncode == 0, done.stdout
    assert (tmp_path / "bytes").read_bytes() == content
    values = np.array([VALUES[n : n + 4] for n in range(0, len(VALUES), 4)], np.float32)
    wanted = load_session(made, engine="tflm").run({"x": values})["y"]
    got = np.array(done.stdout.split(), np.float32).reshape(wanted.shape)
    np.testing.assert_array_equal(got, wanted)


VALUES = (0.25, -0.25, 0.74, 1e9, -1e9, 0.75, -0.75, 0.24, 63.9, -62.6, 1.25, -0.0)
_HOST_MAIN = """\
#include <cstdint>
#include <cstdio>
#include "model/inference.h"
#include "model/model_data.h"

using namespace edgectl_model;

int main(int, char** argv) {
  std::FILE* file = std::fopen(argv[1], "wb");
  if (file == nullptr || std::fwrite(kModelData, 1, kModelSize, file) != kModelSize) return 2;
  std::fclose(file);
  if (reinterpret_cast<uintptr_t>(kModelData) % 16 != 0) return 3;
  float values[4] = {};
  if (SetInput(0, values, 4) != Status::kNotReady || Run() != Status::kNotReady) return 4;
  if (ArenaUsedBytes() != 0) return 5;
  if (Setup() != Status::kOk || Setup() != Status::kOk) return 6;
  if (SetInput(0, values, 3) != Status::kWrongCount) return 7;
  if (GetOutput(1, values, 4) != Status::kNoSuchTensor) return 8;
  if (ArenaUsedBytes() != kArenaBytes || Reset() != Status::kOk) return 9;
  const float given[] = {@VALUES@};
  for (size_t start = 0; start < sizeof(given) / sizeof(given[0]); start += 4) {
    if (SetInput(0, given + start, 4) != Status::kOk || Run() != Status::kOk) return 10;
    if (GetOutput(0, values, 4) != Status::kOk) return 11;
    for (float value : values) std::printf("%.9g ", static_cast<double>(value));
  }
  return 0;
}
""".replace("@VALUES@", ", ".join(f"{value!r}f" for value in VALUES))


def _gcc(*arguments: object) -> None:
    done = subprocess.run(
        ["g++", *map(str, arguments)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def _float_weights(model: Any) -> None:
    model.subgraphs[0].tensors[1].type = tflite.schema.TensorType.FLOAT32
    model.buffers[1].data = np.zeros(4 * len(model.buffers[1].data), np.uint8)


def _free_width(model: Any) -> None:
    model.subgraphs[0].tensors[0].shapeSignature = [1, -1]


def _free_batch(model: Any) -> None:
    for tensor in model.subgraphs[0].tensors:
        if tensor.shape[0] == 1:
            tensor.shapeSignature = [-1, *tensor.shape[1:]]


@pytest.mark.parametrize(
    ("content", "kind", "node", "said"),
    [
        (tflite.unary("TOPK_V2"), "unary", "operator 0 (TOPK_V2)",
         "has no operator 0 (TOPK_V2)"),
        (tflite.unary("RELU", version=9), "unary", "operator 0 (RELU)",
         "version 9 of operator 0 (RELU), its newest is 3"),
        (tflite.unary("MyOwn"), "unary", "operator 0 (MyOwn)", "MyOwn"),
        (tflite.accumulator(), "unary", "operator 0 (VAR_HANDLE)", "memory"),
        (tflite.unary("RELU", "FLOAT32"), "unary", "operator 0 (RELU)",
         "tensor 'x' is FLOAT32"),
        (tflite.edited(DENSE, _float_weights), "dense",
         "operator 0 (FULLY_CONNECTED)", "'weights 0' is FLOAT32"),
        (tflite.edited(DENSE, _free_width), "dense",
         "operator 0 (FULLY_CONNECTED)", "has the shape [1, -1]"),
        (tflite.unary("FLOOR"), "unary", "operator 0 (FLOOR)",
         "does not run model: operator 0 (FLOOR) fails to invoke"),
        (DENSE, "unary", "x", "has no tensor 'x' among its inputs"),
        (DENSE[:-200], "dense", None, "damaged or cut short"),
        (b"\0" * 100, "dense", None, "not a TFLite model"),
    ],
    ids=[
        "operator", "version", "custom", "variables", "float", "float weights", "dynamic",
        "types", "names", "truncated", "nonsense",
    ],
)  # fmt: skip
def test_refuses_with_the_place_and_a_remedy(
    build: Build, tmp_path: Path, content: bytes, kind: str, node: str | None, said: str
) -> None:
    error = refusal(build, content, tmp_path, kind)
    assert said in str(error)
    if node is not None:
        assert node in str(error)


def test_takes_a_free_batch_as_converters_write_it(build: Build, tmp_path: Path) -> None:
    compiled(build, tflite.edited(DENSE, _free_batch), tmp_path)


def test_refuses_the_float_model_of_the_recipe(build: Build, tmp_path: Path) -> None:
    content = (MANIFESTS / "models" / "pump-1.0.0.tflite").read_bytes()
    error = refusal(build, content, tmp_path)
    assert "FLOAT32" in str(error)
    assert "boundary: int8" in str(error.hint)


@pytest.mark.parametrize(
    ("limit", "said"),
    [
        ({"arena": 1024}, "needs an arena of {arena} bytes"),
        ({"modelSize": 100}, "takes {size} bytes of flash; the target allows 100 (modelSize)"),
        ({"storage": 99}, "takes {size} bytes of flash; the target allows 99 (storage)"),
    ],
    ids=["arena", "modelSize", "storage"],
)
def test_refuses_what_does_not_fit_with_measured_against_allowed(
    build: Build, tmp_path: Path, limit: dict[str, int], said: str
) -> None:
    fits = compiled(build, CONVOLUTION, tmp_path, "convolution")
    for architecture, kernels in (("arm", "cmsisNn"), ("xtensa", "espNn")):
        arena = fits.metadata["arenaBytes"] + fits.metadata["kernelScratchBytes"][kernels]
        board: dict[str, Any] = {"architecture": architecture}
        error = refusal(build, CONVOLUTION, tmp_path, "convolution", limits=limit, **board)
        assert said.format(arena=arena, size=len(CONVOLUTION)) in str(error)
        assert str(next(iter(limit.values()))) in str(error)
        exact = {"arena": arena, "modelSize": len(CONVOLUTION), "storage": len(CONVOLUTION)}
        compiled(build, CONVOLUTION, tmp_path, "convolution", limits=exact, **board)


def test_evaluates_by_the_interpreter_and_says_the_arena(build: Build, tmp_path: Path) -> None:
    layers = tflite.network()
    rows = np.random.default_rng(5).normal(size=(200, 16)).astype(np.float32)
    scores = tflite.reference(layers, rows)
    np.savez(tmp_path / "evaluation.npz", features=rows, label=scores.argmax(axis=1))
    np.savez(tmp_path / "golden.npz", features=rows[:3], result=scores[:3].astype(np.float32))
    made = project(compiled(build, DENSE, tmp_path), tmp_path / "project")
    data = {role: tmp_path / f"{role}.npz" for role in ("evaluation", "golden")}
    asked = params(
        "dense", task="classification", labels="label", latency=False,
        goldenTolerance={"absolute": 0.2, "relative": 0.1, "top1": 0.0},
    )  # fmt: skip
    whole, single = (
        build("tflm", "evaluate", {"model": model, **data}, asked).metadata
        for model in (made, made / "model.tflite")
    )
    assert whole["metrics"] == single["metrics"]
    assert whole["metrics"]["accuracy"] > 0.9
    assert whole["samples"] == 200
    assert whole["golden"]["problems"] == []
    assert whole["host"]["engine"].startswith("tflm ")
    assert whole["arenaBytes"] == single["arenaBytes"] > 0
