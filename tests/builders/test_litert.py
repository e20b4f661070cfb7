"""The LiteRT builder: each source at each precision, answered by the real interpreter."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgectl.build.builder import find_builder
from edgectl.build.toolchain import prepare
from edgectl.engine.litert import load
from edgectl.engine.options import EngineOptions
from edgectl.errors import ModelError
from tests.builders.test_tensorflow import PLAIN, SCRIPT, SIGNATURES, tensor

if TYPE_CHECKING:
    from pathlib import Path

    from edgectl.build.runner import Result
    from tests.builders.conftest import Build

pytestmark = pytest.mark.slow  # making the toolchains takes minutes, once
PRECISIONS: dict[str, tuple[dict[str, Any], float]] = {
    "fp32": ({"precision": "fp32"}, 1e-4),
    "fp16": ({"precision": "fp16"}, 2e-3),
    "dynamic": ({"precision": "int8", "scheme": "dynamic"}, 0.03),
    "static": ({"precision": "int8", "scheme": "static"}, 0.08),
    "int8": ({"precision": "int8", "scheme": "static", "boundary": "int8"}, 0.08),
}
"""Params, and how far an answer may be from the source's as a share of the largest."""
NCHW = {"inputs": [tensor("x", [-1, 3, 32, 32])], "outputs": [tensor("y", [-1, 5])]}


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sources")
    subprocess.run([prepare(find_builder("litert")), SCRIPT, folder], check=True)
    data = np.load(folder / "inputs.npz")
    for name, signature in SIGNATURES.items():
        np.savez(folder / f"{name}.npz", **{signature["inputs"][0]["name"]: data[f"{name}_in"]})
    return folder


def torch_like() -> onnx.ModelProto:
    """What an exporter of PyTorch writes: NCHW, strides with padding 1, a residual, groups."""
    rng = np.random.default_rng(0)

    def weights(*shape: int) -> np.ndarray:
        return (rng.normal(size=shape) * 0.3).astype(np.float32)

    constants = {
        "w1": weights(8, 3, 3, 3), "b1": weights(8), "w2": weights(8, 1, 3, 3), "b2": weights(8),
        "w3": weights(8, 8, 1, 1), "w4": weights(12, 4, 3, 3), "w5": weights(5, 12),
        "b5": weights(5), "low": np.float32(0), "high": np.float32(6),
    }  # fmt: skip
    node = helper.make_node
    nodes = [
        node("Conv", ["x", "w1", "b1"], ["a"], strides=[2, 2], pads=[1, 1, 1, 1]),
        node("Relu", ["a"], ["b"]),
        node("MaxPool", ["b"], ["c"], kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]),
        node("Conv", ["c", "w2", "b2"], ["d"], group=8, pads=[1, 1, 1, 1]),
        node("Clip", ["d", "low", "high"], ["e"]),
        node("Conv", ["e", "w3"], ["f"]),
        node("Sigmoid", ["f"], ["g"]),
        node("Mul", ["f", "g"], ["h"]),
        node("Add", ["h", "c"], ["i"]),
        node("Conv", ["i", "w4"], ["j"], group=2),
        node("LeakyRelu", ["j"], ["k"], alpha=0.1),
        node("AveragePool", ["k"], ["l"], kernel_shape=[2, 2], strides=[2, 2], pads=[1, 1, 1, 1]),
        node("GlobalAveragePool", ["l"], ["m"]),
        node("Flatten", ["m"], ["n"]),
        node("Gemm", ["n", "w5", "b5"], ["y"], transB=1),
    ]
    return built(nodes, constants, ["batch", 3, 32, 32], ["batch", 5])


def built(
    nodes: list[onnx.NodeProto], constants: dict[str, Any], takes: list[Any], gives: list[Any]
) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "model",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, takes)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, gives)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    return model


def optimized(build: Build, inputs: dict[str, Path], *params: dict[str, Any]) -> Result:
    merged: dict[str, Any] = {"engine": "litert"}
    for each in params:
        merged |= each
    return build("litert", "optimize", inputs, merged)


def refusal(build: Build, inputs: dict[str, Path], *params: dict[str, Any]) -> ModelError:
    with pytest.raises(ModelError) as caught:
        optimized(build, inputs, *params)
    assert caught.value.hint
    return caught.value


def answers(result: Result, name: str, rows: np.ndarray) -> np.ndarray:
    """By the engine that serves it, with the declared names."""
    session = load(result.outputs["model"], options=EngineOptions(), threads=1)
    (found,) = session.run({name: rows}).values()
    return found


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("source", ["cnn", "lstm.keras", "conv1d.keras", "conv1d.tflite"])
def test_every_source_at_every_precision(
    build: Build, sources: Path, source: str, precision: str
) -> None:
    name, _, suffix = source.partition(".")
    params, share = PRECISIONS[precision]
    inputs = {"source": sources / source, "calibration": sources / f"{name}.npz"}
    taken = {"format": "tflite" if suffix == "tflite" else "tensorflow"}
    result = optimized(build, inputs, SIGNATURES[name], taken, params)
    data = np.load(sources / "inputs.npz")
    rows, wanted = data[f"{name}_in"], data[f"{name}_out"]
    found = answers(result, SIGNATURES[name]["inputs"][0]["name"], rows)
    assert np.abs(found - wanted).max() < share * np.abs(wanted).max()
    assert result.metadata["boundary"] == params.get("boundary", "float")
    if params.get("boundary") == "int8":
        assert result.metadata["floatOperators"] == []


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_an_onnx_model_keeps_its_layout(build: Build, tmp_path: Path, precision: str) -> None:
    onnx.save(torch_like(), tmp_path / "model.onnx")
    rows = np.random.default_rng(1).normal(size=(40, 3, 32, 32)).astype(np.float32)
    np.savez(tmp_path / "calibration.npz", x=rows)
    inputs = {"model": tmp_path / "model.onnx", "calibration": tmp_path / "calibration.npz"}
    params, share = PRECISIONS[precision]
    result = optimized(build, inputs, NCHW, params)
    assert result.metadata["agreement"]["maxDifference"] < 1e-4
    session = load(result.outputs["model"], options=EngineOptions(), threads=1)
    assert [(s.name, s.shape) for s in session.inputs] == [("x", (-1, 3, 32, 32))]
    wanted = onnx_answers(tmp_path / "model.onnx", rows)
    assert np.abs(answers(result, "x", rows) - wanted).max() < share * np.abs(wanted).max()


def onnx_answers(path: Path, rows: np.ndarray) -> np.ndarray:
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"x": rows})[0])


@pytest.mark.parametrize("precision", ["fp16", "dynamic", "int8"])
def test_the_same_request_gives_the_same_bytes(build: Build, sources: Path, precision: str) -> None:
    inputs = {"source": sources / "cnn", "calibration": sources / "cnn.npz"}
    params: list[dict[str, Any]] = [SIGNATURES["cnn"], PRECISIONS[precision][0]]
    params.append({"format": "tensorflow"})
    first, second = (optimized(build, inputs, *params).outputs["model"] for _ in "12")
    assert first.read_bytes() == second.read_bytes()


def test_an_unrolled_recurrence_gives_the_same_bytes(build: Build, sources: Path) -> None:
    """One run of TensorFlow's quantiser in four makes another file of it."""
    inputs = {"source": sources / "lstm.keras", "calibration": sources / "lstm.npz"}
    params: list[dict[str, Any]] = [SIGNATURES["lstm"], PRECISIONS["int8"][0]]
    params.append({"format": "tensorflow"})
    made = {optimized(build, inputs, *params).outputs["model"].read_bytes() for _ in range(4)}
    assert len(made) == 1


def test_a_quantised_file_passes_through(build: Build, sources: Path, tmp_path: Path) -> None:
    inputs = {"source": sources / "cnn", "calibration": sources / "cnn.npz"}
    static = PRECISIONS["static"][0]
    made = optimized(build, inputs, SIGNATURES["cnn"], {"format": "tensorflow"}, static)
    again = {"source": made.outputs["model"]}
    passed = optimized(build, again, SIGNATURES["cnn"], {"format": "tflite"}, static)
    assert passed.outputs["model"].read_bytes() == made.outputs["model"].read_bytes()
    assert passed.metadata["passedThrough"] is True
    full = PRECISIONS["int8"][0]
    error = refusal(build, again, SIGNATURES["cnn"], {"format": "tflite"}, full)
    assert "quantised with a float boundary" in error.message


def test_the_evaluation_is_the_engines(build: Build, sources: Path) -> None:
    inputs = {"source": sources / "cnn", "calibration": sources / "cnn.npz"}
    made = optimized(
        build, inputs, SIGNATURES["cnn"], {"format": "tensorflow"}, PRECISIONS["int8"][0]
    )
    data = np.load(sources / "inputs.npz")
    labels = data["cnn_out"].argmax(axis=1)
    np.savez(sources / "evaluation.npz", image=data["cnn_in"], label=labels)
    params = {
        **SIGNATURES["cnn"], "task": "classification", "engine": "litert",
        "labels": "label", "latency": False,
    }  # fmt: skip
    inputs = {"model": made.outputs["model"], "evaluation": sources / "evaluation.npz"}
    report = build("litert", "evaluate", inputs, params).metadata
    assert report["samples"] == len(labels)
    assert report["host"]["engine"].startswith("litert ")


def test_another_calibration_than_tflites_is_said_to_be_its_own(
    build: Build, sources: Path
) -> None:
    inputs = {"source": sources / "cnn.tflite", "calibration": sources / "cnn.npz"}
    asked = {**PRECISIONS["static"][0], "method": "percentile", "percentile": 99.9}
    result = optimized(build, inputs, SIGNATURES["cnn"], {"format": "tflite"}, asked)
    assert result.metadata["calibration"] == {"method": "minmax", "asked": "percentile"}


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"image": np.ones((4, 8, 8, 3), np.float32)}, r"\[4, 8, 8, 3\]"),
        ({"other": np.ones((4, 16, 16, 3), np.float32)}, "no array 'image'"),
        ({"image": np.full((4, 16, 16, 3), np.nan, np.float32)}, "NaN"),
        (None, "needs calibration data"),
    ],
    ids=["shape", "name", "nan", "none"],
)
def test_calibration_that_does_not_fit_is_refused(
    build: Build, sources: Path, tmp_path: Path, arrays: dict[str, Any] | None, said: str
) -> None:
    inputs = {"source": sources / "cnn.tflite"}
    if arrays is not None:
        np.savez(tmp_path / "calibration.npz", **arrays)
        inputs["calibration"] = tmp_path / "calibration.npz"
    with pytest.raises(ModelError, match=said):
        optimized(build, inputs, SIGNATURES["cnn"], {"format": "tflite"}, PRECISIONS["static"][0])


def test_an_open_dimension_is_refused(build: Build, sources: Path) -> None:
    signature = {"inputs": [tensor("x", [-1, -1])], "outputs": [tensor("y", [-1, 1])]}
    error = refusal(
        build, {"source": sources / "free"}, signature, {"format": "tensorflow"},
        {"precision": "fp32"},
    )  # fmt: skip
    assert "input 'x' has shape [-1, -1]: TFLite takes static shapes" in error.message


def test_a_select_operator_is_refused_by_name(build: Build, sources: Path) -> None:
    inputs = {"source": sources / "flex"}
    error = refusal(build, inputs, PLAIN, {"format": "tensorflow"}, {"precision": "fp32"})
    assert "TFLite has no operator Atan (nodes '" in error.message


def test_an_onnx_operator_without_a_form_is_refused(build: Build, tmp_path: Path) -> None:
    nodes = [helper.make_node("Asinh", ["x"], ["y"], name="odd")]
    onnx.save(built(nodes, {}, ["batch", 4], ["batch", 4]), tmp_path / "model.onnx")
    inputs = {"model": tmp_path / "model.onnx"}
    error = refusal(build, inputs, PLAIN, {"precision": "fp32"})
    assert "operator Asinh (node 'odd') has no form in TFLite" in error.message


def test_an_unsafe_model_is_refused_here_too(build: Build, sources: Path) -> None:
    inputs = {"source": sources / "write"}
    error = refusal(build, inputs, PLAIN, {"format": "tensorflow"}, {"precision": "fp32"})
    assert "operator WriteFile" in error.message
    assert not (sources / "exploded").exists()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"precision": "int4"}, "not int4"),
        ({"precision": "int8", "activations": "uint8"}, "activations is 'uint8'"),
    ],
)
def test_an_option_that_tflite_lacks_is_refused(
    build: Build, sources: Path, change: dict[str, Any], said: str
) -> None:
    inputs = {"source": sources / "cnn.tflite"}
    assert said in refusal(build, inputs, SIGNATURES["cnn"], {"format": "tflite"}, change).message


def test_weights_that_are_not_finite_are_refused(build: Build, sources: Path) -> None:
    inputs = {"source": sources / "ill"}
    error = refusal(build, inputs, PLAIN, {"format": "tensorflow"}, {"precision": "fp32"})
    assert "NaN or infinite" in error.message
    assert error.node


def test_a_cut_file_is_refused(build: Build, sources: Path, tmp_path: Path) -> None:
    cut = tmp_path / "model.tflite"
    cut.write_bytes((sources / "cnn.tflite").read_bytes()[:1000])
    refusal(build, {"source": cut}, SIGNATURES["cnn"], {"format": "tflite"}, {"precision": "fp32"})
