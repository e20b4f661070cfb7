"""The OpenVINO builder, on ONNX models made here and on IRs that OpenVINO wrote."""

from __future__ import annotations

import re
import shutil
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgectl.engine import openvino  # noqa: F401  (keeps telemetry out before OpenVINO comes in)
from edgectl.engine.session import load_session
from edgectl.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from edgectl.build.runner import Result
    from tests.builders.conftest import Build

pytestmark = pytest.mark.slow  # making the toolchains takes minutes, once

PICTURE = {"name": "x", "datatype": "FP32", "shape": [-1, 3, 16, 16]}
SCORES = {"name": "y", "datatype": "FP32", "shape": [-1, 4]}
SIGNATURE = {"inputs": [PICTURE], "outputs": [SCORES]}
ROWS = np.random.default_rng(1).normal(size=(24, 3, 16, 16)).astype(np.float32)


def weights(seed: int, **shapes: tuple[int, ...]) -> list[onnx.TensorProto]:
    rng = np.random.default_rng(seed)
    return [
        numpy_helper.from_array((rng.normal(size=shape) * 0.3).astype(np.float32), name)
        for name, shape in shapes.items()
    ]


def model_of(
    nodes: list[onnx.NodeProto],
    initializers: list[onnx.TensorProto],
    inputs: Mapping[str, list[Any]],
    outputs: Mapping[str, list[Any]],
    domains: tuple[str, ...] = (),
) -> onnx.ModelProto:
    taken, given = (
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in v.items()]
        for v in (inputs, outputs)
    )
    graph = helper.make_graph(nodes, "graph", taken, given, initializers)
    opsets = [helper.make_opsetid("", 17), *(helper.make_opsetid(name, 1) for name in domains)]
    model = helper.make_model(graph, opset_imports=opsets)
    model.ir_version = 8
    return model


def cnn(batch: int | str = "n") -> onnx.ModelProto:
    nodes = [
        helper.make_node("Conv", ["x", "w1", "b1"], ["c1"], name="conv_1", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c1"], ["r1"], name="relu_1"),
        helper.make_node("Conv", ["r1", "w2", "b2"], ["c2"], name="conv_2", strides=[2, 2]),
        helper.make_node("Relu", ["c2"], ["r2"], name="relu_2"),
        helper.make_node("GlobalAveragePool", ["r2"], ["g"], name="pool"),
        helper.make_node("Flatten", ["g"], ["f"], name="flat"),
        helper.make_node("Gemm", ["f", "w3", "b3"], ["y"], name="scores", transB=1),
    ]
    values = weights(0, w1=(8, 3, 3, 3), b1=(8,), w2=(16, 8, 3, 3), b2=(16,), w3=(4, 16), b3=(4,))
    return model_of(nodes, values, {"x": [batch, 3, 16, 16]}, {"y": [batch, 4]})


def mlp() -> onnx.ModelProto:
    nodes = [
        helper.make_node("MatMul", ["x", "w1"], ["m1"], name="product_1"),
        helper.make_node("Relu", ["m1"], ["r1"], name="relu_1"),
        helper.make_node("MatMul", ["r1", "w2"], ["m2"], name="product_2"),
        helper.make_node("Relu", ["m2"], ["r2"], name="relu_2"),
        helper.make_node("MatMul", ["r2", "w3"], ["y"], name="product_3"),
    ]
    values = weights(0, w1=(128, 128), w2=(128, 128), w3=(128, 4))
    return model_of(nodes, values, {"x": ["n", 128]}, {"y": ["n", 4]})


VECTOR = {"name": "x", "datatype": "FP32", "shape": [-1, 128]}
MLP_SIGNATURE = {"inputs": [VECTOR], "outputs": [SCORES]}


def saved(model: onnx.ModelProto, folder: Path) -> Path:
    onnx.save(model, folder / "model.onnx")
    return folder / "model.onnx"


def as_ir(model: onnx.ModelProto, folder: Path, *, half: bool = False) -> Path:
    """The IR of an ONNX model, under names of its own."""
    import openvino as ov

    (folder / "ir").mkdir()
    ir = ov.convert_model(saved(model, folder))
    ov.save_model(ir, folder / "ir" / "exported.xml", compress_to_fp16=half)
    return folder / "ir"


def optimized(build: Build, source: Path, folder: Path, precision: str, **params: Any) -> Result:
    rows = params.pop("rows", ROWS)
    np.savez(folder / "calibration.npz", x=rows)
    role = "source" if source.is_dir() else "model"
    inputs = {role: source, "calibration": folder / "calibration.npz"}
    request = {"precision": precision, "engine": "openvino"} | SIGNATURE | params
    return build("openvino", "optimize", inputs, request)


def refusal(build: Build, source: Path, folder: Path, precision: str, **params: Any) -> ModelError:
    with pytest.raises(ModelError) as caught:
        optimized(build, source, folder, precision, **params)
    assert caught.value.hint
    return caught.value


def directory(result: Result) -> Path:
    return result.outputs["model/model.xml"].parent


def answers(folder: Path, rows: np.ndarray) -> np.ndarray:
    session = load_session(folder, engine="openvino")
    answer: np.ndarray = session.run({"x": rows})["y"]
    session.close()
    return answer


def reference(model: onnx.ModelProto, rows: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    answer: np.ndarray = session.run(None, {"x": rows})[0]
    return answer


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_a_cnn_answers_as_its_source_and_is_the_same_twice(
    build: Build, tmp_path: Path, precision: str
) -> None:
    source = saved(cnn(), tmp_path)
    first, second = (optimized(build, source, tmp_path, precision) for _ in range(2))
    for name in ("model.xml", "model.bin"):
        one, two = ((directory(result) / name).read_bytes() for result in (first, second))
        assert one == two, name
    want, got = reference(cnn(), ROWS), answers(directory(first), ROWS)
    tolerance = {"fp32": 1e-4, "fp16": 5e-3, "int8": 0.15}[precision] * np.abs(want).max()
    np.testing.assert_allclose(got, want, atol=tolerance)
    if precision == "fp32":
        assert first.metadata["agreement"]["samples"] == len(ROWS)
        assert first.metadata["agreement"]["data"] == "calibration"
    else:
        assert first.metadata["difference"]["outputs"]["y"]["sqnr"] > 20
    assert (first.metadata["fakeQuantize"] > 0) == (precision == "int8")
    assert not first.metadata["attention"]


def test_nothing_of_the_machine_or_the_version_is_in_the_file(build: Build, tmp_path: Path) -> None:
    import openvino as ov

    text = (
        directory(optimized(build, saved(cnn(), tmp_path), tmp_path, "int8")) / "model.xml"
    ).read_text()
    assert str(tmp_path) not in text
    assert ov.__version__.split("-")[0] not in text
    assert "conversion_parameters" not in text
    assert '<precision value="int8" />' in text


def test_fp16_halves_the_weights(build: Build, tmp_path: Path) -> None:
    source = saved(cnn(), tmp_path)
    full, half = (
        (directory(optimized(build, source, tmp_path, precision)) / "model.bin").stat().st_size
        for precision in ("fp32", "fp16")
    )
    assert half < 0.6 * full


def test_int4_holds_the_weights_of_products(build: Build, tmp_path: Path) -> None:
    rows = np.random.default_rng(2).normal(size=(8, 128)).astype(np.float32)
    source = saved(mlp(), tmp_path)
    result = optimized(build, source, tmp_path, "int4", rows=rows, **MLP_SIGNATURE)
    assert (directory(result) / "model.bin").stat().st_size < 128 * 128 * 2
    assert 'element_type="i4"' in (directory(result) / "model.xml").read_text()
    want = reference(mlp(), rows)
    assert np.corrcoef(want.ravel(), answers(directory(result), rows).ravel())[0, 1] > 0.95


def test_int4_of_convolutions_is_refused(build: Build, tmp_path: Path) -> None:
    error = refusal(build, saved(cnn(), tmp_path), tmp_path, "int4")
    assert "no matrix product" in error.message
    assert "int8" in str(error.hint)


@pytest.mark.parametrize(
    "params",
    [
        {"symmetricActivations": False},
        {"perChannel": False},
        {"reduceRange": True},
        {"method": "percentile", "percentile": 99.0},
    ],
    ids=["asymmetric", "per-tensor", "seven-bits", "percentile"],
)
def test_each_quantisation_option_changes_the_file_and_still_answers(
    build: Build, tmp_path: Path, params: dict[str, Any]
) -> None:
    source = saved(cnn(), tmp_path)
    plain, changed = (
        directory(optimized(build, source, tmp_path, "int8", **p)) for p in ({}, params)
    )
    files = [
        (folder / "model.xml").read_bytes() + (folder / "model.bin").read_bytes()
        for folder in (plain, changed)
    ]
    assert files[0] != files[1]
    want = reference(cnn(), ROWS)
    np.testing.assert_allclose(answers(changed, ROWS), want, atol=0.25 * np.abs(want).max())


def test_a_cpu_without_vnni_gets_seven_bits_unasked(build: Build, tmp_path: Path) -> None:
    source = saved(cnn(), tmp_path)
    old = ["avx2", "fma"]
    asked, unasked, refused, newer, elsewhere = (
        (directory(optimized(build, source, tmp_path, "int8", **params)) / "model.bin").read_bytes()
        for params in (
            {"reduceRange": True},
            {"reduceRange": None, "cpuFeatures": old},
            {"reduceRange": False, "cpuFeatures": old},
            {"reduceRange": None, "cpuFeatures": [*old, "avx_vnni"]},
            {"reduceRange": None, "cpuFeatures": old, "device": "GPU"},
        )
    )
    assert unasked == asked != refused
    assert newer == refused
    assert elsewhere != asked


def test_every_calibration_method_is_its_own(build: Build, tmp_path: Path) -> None:
    source = saved(cnn(), tmp_path)
    weights = set()
    for method in ("minmax", "percentile", "entropy"):
        made = optimized(build, source, tmp_path, "int8", method=method, percentile=99.0)
        assert made.metadata["calibration"] == {"method": method}
        weights.add((directory(made) / "model.bin").read_bytes())
    assert len(weights) == 3


def test_attention_is_calibrated_as_a_transformer(build: Build, tmp_path: Path) -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "wq"], ["q"], name="query"),
        helper.make_node("MatMul", ["x", "wk"], ["k"], name="key"),
        helper.make_node("Transpose", ["k"], ["kt"], name="turn", perm=[0, 2, 1]),
        helper.make_node("MatMul", ["q", "kt"], ["s"], name="score"),
        helper.make_node("Softmax", ["s"], ["p"], name="weigh", axis=-1),
        helper.make_node("MatMul", ["p", "x"], ["o"], name="mix"),
        helper.make_node("MatMul", ["o", "wo"], ["y"], name="out"),
    ]
    values = weights(3, wq=(16, 16), wk=(16, 16), wo=(16, 4))
    model = model_of(nodes, values, {"x": ["n", 6, 16]}, {"y": ["n", 6, 4]})
    rows = np.random.default_rng(4).normal(size=(16, 6, 16)).astype(np.float32)
    signature = {
        "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 6, 16]}],
        "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1, 6, 4]}],
    }
    result = optimized(build, saved(model, tmp_path), tmp_path, "int8", rows=rows, **signature)
    assert result.metadata["attention"]
    assert result.metadata["difference"]["outputs"]["y"]["sqnr"] > 10


@pytest.mark.parametrize("half", [False, True], ids=["fp32", "fp16"])
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_an_ir_passes_through_or_is_quantised_under_the_declared_names(
    build: Build, tmp_path: Path, half: bool, precision: str
) -> None:
    source = as_ir(cnn(), tmp_path, half=half)
    renamed = {
        "inputs": [PICTURE | {"name": "picture"}],
        "outputs": [SCORES | {"name": "scores"}],
    }
    np.savez(tmp_path / "calibration.npz", picture=ROWS)
    result = build(
        "openvino",
        "optimize",
        {"source": source, "calibration": tmp_path / "calibration.npz"},
        {"precision": precision, "engine": "openvino", "format": "openvino"} | renamed,
    )
    session = load_session(directory(result), engine="openvino")
    assert [spec.name for spec in session.inputs] == ["picture"]
    got = session.run({"picture": ROWS})["scores"]
    want = reference(cnn(), ROWS)
    tolerance = {"fp32": 5e-3, "int8": 0.15}[precision] * np.abs(want).max()
    np.testing.assert_allclose(got, want, atol=tolerance)


def test_depthwise_weights_are_quantised_behind_a_reshape_too(build: Build, tmp_path: Path) -> None:
    """`read_model` and `save_model` leave the Reshape that `convert_model` folds."""
    import openvino as ov

    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["c1"], name="depthwise", group=3),
        helper.make_node("Relu", ["c1"], ["r1"], name="relu"),
        helper.make_node("Conv", ["r1", "w2"], ["c2"], name="pointwise"),
        helper.make_node("GlobalAveragePool", ["c2"], ["g"], name="pool"),
        helper.make_node("Flatten", ["g"], ["y"], name="flat"),
    ]
    values = weights(5, w1=(3, 1, 3, 3), w2=(4, 3, 1, 1))
    model = model_of(nodes, values, {"x": ["n", 3, 16, 16]}, {"y": ["n", 4]})
    (tmp_path / "ir").mkdir()
    unfolded = ov.Core().read_model(saved(model, tmp_path))
    ov.save_model(unfolded, tmp_path / "ir" / "model.xml")
    assert 'type="Reshape"' in (tmp_path / "ir" / "model.xml").read_text()
    made = directory(optimized(build, tmp_path / "ir", tmp_path, "int8"))
    text = (made / "model.xml").read_text()
    assert 'element_type="i8" shape="3, 1, 1, 3, 3"' in text
    assert text.count('element_type="i8"') == 2
    want = reference(model, ROWS)
    np.testing.assert_allclose(answers(made, ROWS), want, atol=0.15 * np.abs(want).max())


def test_a_quantised_ir_stays_as_it_is(build: Build, tmp_path: Path) -> None:
    made = directory(optimized(build, saved(cnn(), tmp_path), tmp_path, "int8"))
    source = tmp_path / "quantized"
    shutil.copytree(made, source)
    again = directory(optimized(build, source, tmp_path, "int8"))
    np.testing.assert_array_equal(answers(again, ROWS), answers(made, ROWS))
    error = refusal(build, source, tmp_path, "fp16")
    assert "quantised to int8 already" in error.message


BOMB = (
    '<?xml version="1.0"?><!DOCTYPE net [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;">]>'
    '<net name="&b;" version="11"><layers></layers><edges></edges></net>'
)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda text: BOMB, "declares a document type"),
        (lambda text: '<!DOCTYPE net SYSTEM "file:///etc/passwd">' + text[21:], "document type"),
        (lambda text: text[: len(text) // 2], "not a readable OpenVINO IR"),
        (lambda text: "hello", "not a readable OpenVINO IR"),
        (lambda text: "<net version='11'>" + "<a>" * 300 + "</a>" * 300 + "</net>", "too deep"),
        (lambda text: text.replace('version="11"', 'version="6"', 1), "IR of version 6"),
        (lambda text: re.sub(r'offset="\d+"', 'offset="999999999"', text), "of the weights"),
        (lambda text: re.sub(r'offset="\d+"', 'offset="-8"', text, count=1), "of the weights"),
        (lambda text: re.sub(r'size="\d+"', 'size="4"', text, count=1), "cannot be 4 bytes"),
        (lambda text: text.replace('type="ReLU"', 'type="Sorcery"', 1), "Sorcery"),
    ],
    ids=[
        "bomb", "external", "cut", "text", "deep", "version", "outside", "before", "size", "type",
    ],
)  # fmt: skip
def test_a_hostile_or_damaged_topology_is_refused(
    build: Build, tmp_path: Path, change: Any, said: str
) -> None:
    source = as_ir(cnn(), tmp_path)
    file = source / "exported.xml"
    file.write_text(change(file.read_text()))
    assert said in refusal(build, source, tmp_path, "fp32").message


def test_weights_cut_short_are_named(build: Build, tmp_path: Path) -> None:
    source = as_ir(cnn(), tmp_path)
    file = source / "exported.bin"
    file.write_bytes(file.read_bytes()[:500])
    error = refusal(build, source, tmp_path, "fp32")
    assert "of the weights, which are 500 bytes" in error.message


def test_weights_that_are_not_finite_are_named(build: Build, tmp_path: Path) -> None:
    source = as_ir(cnn(), tmp_path)
    file = source / "exported.bin"
    file.write_bytes(np.full(8, np.nan, np.float32).tobytes() + file.read_bytes()[32:])
    assert "NaN or infinite" in refusal(build, source, tmp_path, "fp32").message


def test_a_topology_without_its_weights_is_refused(build: Build, tmp_path: Path) -> None:
    """OpenVINO would take the .bin beside it, which no digest of the manifest covers."""
    source = as_ir(cnn(), tmp_path) / "exported.xml"
    with pytest.raises(ModelError, match="which are 0 bytes") as caught:
        build("openvino", "optimize", {"source": source}, {"precision": "fp32"} | SIGNATURE)
    assert "a directory" in str(caught.value.hint)


def test_a_model_that_keeps_state_between_requests_is_refused(build: Build, tmp_path: Path) -> None:
    import openvino as ov
    from openvino import opset13

    x = opset13.parameter([1, 4], np.float32, name="x")
    start = opset13.constant(np.zeros((1, 4), np.float32))
    total = opset13.add(opset13.read_value(start, "total_so_far"), x)
    model = ov.Model([opset13.result(total)], [opset13.assign(total, "total_so_far")], [x], "sum")
    (tmp_path / "ir").mkdir()
    ov.save_model(model, tmp_path / "ir" / "sum.xml")
    error = refusal(build, tmp_path / "ir", tmp_path, "fp32")
    assert "keeps state" in error.message
    assert "total_so_far" in str(error)


def test_a_directory_of_two_models_is_refused(build: Build, tmp_path: Path) -> None:
    source = as_ir(cnn(), tmp_path)
    shutil.copy(source / "exported.xml", source / "other.xml")
    assert "one .xml and one .bin" in refusal(build, source, tmp_path, "fp32").message


def test_an_operator_that_openvino_lacks_is_named_with_its_node(
    build: Build, tmp_path: Path
) -> None:
    node = helper.make_node("Sorcery", ["x"], ["y"], name="spell_7", domain="com.example")
    model = model_of([node], [], {"x": ["n", 4]}, {"y": ["n", 4]}, domains=("com.example",))
    signature = {"inputs": [VECTOR | {"shape": [-1, 4]}], "outputs": [SCORES]}
    rows = np.ones((2, 4), np.float32)
    error = refusal(build, saved(model, tmp_path), tmp_path, "fp32", rows=rows, **signature)
    assert "com.example.Sorcery" in error.message
    assert "spell_7" in str(error)


def test_an_npu_takes_fixed_shapes_only(build: Build, tmp_path: Path) -> None:
    source = saved(cnn(), tmp_path)
    error = refusal(build, source, tmp_path, "int8", device="NPU")
    assert "an NPU takes fixed shapes only" in error.message
    assert "[1, 3, 16, 16]" in str(error.hint)
    fixed = {
        "inputs": [PICTURE | {"shape": [1, 3, 16, 16]}],
        "outputs": [SCORES | {"shape": [1, 4]}],
    }
    result = optimized(build, source, tmp_path, "int8", device="NPU", **fixed)
    session = load_session(directory(result), engine="openvino")
    assert session.inputs[0].shape == (1, 3, 16, 16)


@pytest.mark.parametrize(
    ("params", "said"),
    [
        ({"inputs": [PICTURE | {"datatype": "FP16"}]}, "'x' is f32 in the model, FP16"),
        ({"inputs": [PICTURE, PICTURE | {"name": "z"}]}, "has 1 inputs"),
        ({"outputs": [SCORES | {"shape": [-1, 5]}]}, "'y' is [-1, 4] in the model, [-1, 5]"),
        ({"compression": {"weights": "sparse"}}, "not sparse"),
        ({"precision": "fp8"}, "not fp8"),
    ],
    ids=["datatype", "count", "shape", "compression", "precision"],
)
def test_what_does_not_fit_is_refused(
    build: Build, tmp_path: Path, params: dict[str, Any], said: str
) -> None:
    error = refusal(build, saved(cnn(), tmp_path), tmp_path, **({"precision": "fp32"} | params))
    assert said in error.message


def test_outputs_that_share_a_tensor_keep_their_names(build: Build, tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Relu", ["x"], ["y"], name="relu"),
        helper.make_node("Identity", ["y"], ["z"], name="same"),
    ]
    model = model_of(nodes, [], {"x": ["n", 4]}, {"y": ["n", 4], "z": ["n", 4]})
    signature = {
        "inputs": [VECTOR | {"shape": [-1, 4]}],
        "outputs": [SCORES, SCORES | {"name": "z"}],
    }
    rows = np.random.default_rng(0).normal(size=(4, 4)).astype(np.float32)
    result = optimized(build, saved(model, tmp_path), tmp_path, "fp32", rows=rows, **signature)
    session = load_session(directory(result), engine="openvino")
    outputs = session.run({"x": rows})
    assert sorted(outputs) == ["y", "z"]
    np.testing.assert_array_equal(outputs["z"], np.maximum(rows, 0))


@pytest.mark.parametrize("device", ["CPU", "GPU"])
def test_evaluation_runs_the_variant(build: Build, tmp_path: Path, device: str) -> None:
    """For a GPU that this machine lacks, on the CPU and untimed."""
    import openvino as ov

    made = directory(optimized(build, saved(cnn(), tmp_path), tmp_path, "fp32"))
    labels = reference(cnn(), ROWS).argmax(axis=1)
    np.savez(tmp_path / "evaluation.npz", x=ROWS, label=labels)
    params = {
        "engine": "openvino",
        "device": device,
        "task": "classification",
        "labels": "label",
        "outputs": [{"name": "y"}],
        "runs": 3,
    }
    inputs = {"model": made, "evaluation": tmp_path / "evaluation.npz"}
    report = build("openvino", "evaluate", inputs, params).metadata
    assert report["metrics"]["accuracy"] == 1.0
    assert report["host"]["engine"].startswith("openvino ")
    if device in ov.Core().available_devices:
        assert report["measured"]["latency"]["runs"] == 3
    else:
        assert report["host"]["providers"] == ["CPU"]
        assert "measured" not in report
