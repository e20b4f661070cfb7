"""The ONNX builder, on models made here: what it makes, and everything it refuses."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgectl.errors import ModelError
from tests.builders.models import ROWS, SCORES, SIGNATURE, dense, save, save_rows

if TYPE_CHECKING:
    from pathlib import Path

    from tests.builders.conftest import Build

pytestmark = pytest.mark.slow  # making the toolchains takes minutes, once
INT8 = SIGNATURE | {
    "precision": "int8",
    "activations": "uint8",
    "weights": "int8",
    "symmetricActivations": False,
    "perChannel": True,
    "method": "minmax",
}
TENSORRT = INT8 | {"activations": "int8", "symmetricActivations": True}


def imported(build: Build, path: Path, **params: Any) -> onnx.ModelProto:
    result = build("onnx", "import", {"source": path}, SIGNATURE | params)
    return onnx.load(result.outputs["model"])


def refusal(build: Build, path: Path, **params: Any) -> str:
    with pytest.raises(ModelError) as caught:
        imported(build, path, **params)
    assert caught.value.hint
    return caught.value.message


def test_import_strips_what_a_clock_or_a_path_put_in(build: Build, tmp_path: Path) -> None:
    model = imported(build, save(dense(), tmp_path / "m.onnx"))
    data = model.SerializeToString()
    for trace in (b"somebody", b"noon", b"tuesday", b"trainer"):
        assert trace not in data
    assert model.graph.name == "model"
    assert model.graph.value_info or len(model.graph.node) == 1


def test_import_folds_constants(build: Build, tmp_path: Path) -> None:
    nodes = (
        helper.make_node("Add", ["b", "b"], ["bb"]),
        helper.make_node("ReduceSum", ["bb"], ["s"], keepdims=0),
        helper.make_node("Mul", ["x", "s"], ["h"]),
    )
    model = imported(build, save(dense(*nodes), tmp_path / "m.onnx"))
    assert "ReduceSum" not in {node.op_type for node in model.graph.node}


def test_import_upgrades_an_old_opset(build: Build, tmp_path: Path) -> None:
    model = imported(build, save(dense(opset=9), tmp_path / "m.onnx"))
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 17)]


def test_import_leaves_a_newer_opset(build: Build, tmp_path: Path) -> None:
    model = imported(build, save(dense(opset=21), tmp_path / "m.onnx"))
    assert model.opset_import[0].version == 21


def test_import_compares_with_the_source(build: Build, tmp_path: Path) -> None:
    inputs = {
        "source": save(dense(opset=9), tmp_path / "m.onnx"),
        "evaluation": save_rows(tmp_path / "e.npz"),
    }
    metadata = build("onnx", "import", inputs, SIGNATURE).metadata
    assert metadata["agreement"]["samples"] == 32
    assert 0 <= metadata["agreement"]["maxDifference"] < 1e-4
    assert metadata["parameters"] == 15


def test_import_inlines_local_functions(build: Build, tmp_path: Path) -> None:
    model = dense(helper.make_node("Double", ["x"], ["h"], domain="local"))
    function = helper.make_function(
        "local",
        "Double",
        ["u"],
        ["v"],
        [helper.make_node("Add", ["u", "u"], ["v"])],
        [helper.make_opsetid("", 17)],
    )
    model.functions.append(function)
    model.opset_import.append(helper.make_opsetid("local", 1))
    made = imported(build, save(model, tmp_path / "m.onnx"))
    assert not made.functions
    assert {entry.domain for entry in made.opset_import} == {""}


@pytest.mark.parametrize("content", [b"", b"not a model", b"\x80\x04K\x01."])
def test_what_is_no_model_is_refused(build: Build, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "m.onnx").write_bytes(content)
    message = refusal(build, tmp_path / "m.onnx")
    assert "model 'model'" in message
    assert "builder 'onnx'" in message


@pytest.mark.parametrize(
    ("node", "named"),
    [
        (helper.make_node("Frobnicate", ["x"], ["h"], name="odd"), "Frobnicate"),
        (helper.make_node("Gelu", ["x"], ["h"], name="odd"), "ai.onnx.Gelu"),
        (helper.make_node("FusedConv", ["x"], ["h"], name="odd", domain="com.example"), "domain"),
    ],
    ids=["unknown", "newer opset", "unknown domain"],
)
def test_an_operator_that_is_not_standard_is_named(
    build: Build, tmp_path: Path, node: onnx.NodeProto, named: str
) -> None:
    message = refusal(build, save(dense(node), tmp_path / "m.onnx"))
    assert named in message
    assert "(at odd)" in message


def test_a_graph_that_contradicts_itself_is_refused(build: Build, tmp_path: Path) -> None:
    model = dense(weights=np.ones((5, 3), np.float32))
    assert "shape inference fails" in refusal(build, save(model, tmp_path / "m.onnx"))


def test_a_mask_of_attention_is_infinite_on_purpose(build: Build, tmp_path: Path) -> None:
    mask = np.triu(np.full((3, 3), -np.inf, np.float32), 1)
    model = dense()
    model.graph.initializer.append(numpy_helper.from_array(mask, "mask"))
    imported(build, save(model, tmp_path / "m.onnx"))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_not_finite_are_refused(
    build: Build, tmp_path: Path, value: float
) -> None:
    weights = np.ones((4, 3), np.float32)
    weights[1, 1] = value
    message = refusal(build, save(dense(weights=weights), tmp_path / "m.onnx"))
    assert "NaN or infinite" in message
    assert "(at w)" in message


def test_weights_outside_the_file_are_refused(build: Build, tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    onnx.save_model(dense(), path, save_as_external_data=True, size_threshold=0)
    assert "outside the file" in refusal(build, path)


@pytest.mark.parametrize(
    ("params", "said"),
    [
        ({"inputs": [ROWS | {"name": "rows"}]}, "inputs are 'x', the manifest declares 'rows'"),
        ({"inputs": [ROWS | {"datatype": "INT8"}]}, "'x' is float32 [-1, 4] in the model, INT8"),
        ({"outputs": [SCORES | {"shape": [-1, 5]}]}, "'y' is float32 [-1, 3] in the model"),
        ({"outputs": []}, "outputs are 'y', the manifest declares none"),
    ],
    ids=["name", "datatype", "shape", "missing"],
)
def test_a_signature_that_differs_is_refused(
    build: Build, tmp_path: Path, params: dict[str, Any], said: str
) -> None:
    assert said in refusal(build, save(dense(), tmp_path / "m.onnx"), **params)


def optimize_refusal(
    build: Build, model: onnx.ModelProto, data: Path | None, tmp_path: Path, **params: Any
) -> str:
    inputs = {"model": save(model, tmp_path / "m.onnx")}
    if data is not None:
        inputs["calibration"] = data
    with pytest.raises(ModelError) as caught:
        build("onnx", "optimize", inputs, INT8 | params)
    assert caught.value.hint
    return caught.value.message


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        (
            {"x": np.ones((8, 5), np.float32)},
            "float32 [8, 5], spec.inputs declares float32 [-1, 4]",
        ),
        ({"x": np.ones((8, 4))}, "float64 [8, 4], spec.inputs declares float32 [-1, 4]"),
        ({"x": np.ones((8, 2, 2), np.float32)}, "float32 [8, 2, 2], spec.inputs declares"),
        ({"x": np.ones((0, 4), np.float32)}, "{'x': 0} samples"),
        ({"x": np.full((8, 4), np.nan, np.float32)}, "NaN"),
        ({"x": None, "image": np.ones(3)}, "no array 'x'; it has 'image'"),
        ({"x": np.array([object()])}, "not a usable .npz file"),
    ],
    ids=["shape", "dtype", "rank", "empty", "nan", "name", "pickle"],
)
def test_calibration_data_that_do_not_fit_are_refused(
    build: Build, tmp_path: Path, arrays: dict[str, Any], said: str
) -> None:
    data = save_rows(tmp_path / "c.npz", **arrays)
    assert said in optimize_refusal(build, dense(), data, tmp_path)


def test_a_file_that_is_no_npz_is_refused(build: Build, tmp_path: Path) -> None:
    (tmp_path / "c.npz").write_bytes(b"PK not a zip")
    assert "not a usable .npz file" in optimize_refusal(
        build, dense(), tmp_path / "c.npz", tmp_path
    )


def test_int8_without_calibration_data_is_refused(build: Build, tmp_path: Path) -> None:
    assert "needs calibration data" in optimize_refusal(build, dense(), None, tmp_path)


def test_a_precision_the_builder_does_not_make_is_refused(build: Build, tmp_path: Path) -> None:
    data = save_rows(tmp_path / "c.npz")
    assert "int4" in optimize_refusal(build, dense(), data, tmp_path, precision="int4")


def test_a_model_without_weights_is_refused(build: Build, tmp_path: Path) -> None:
    graph = helper.make_graph(
        [helper.make_node("Sigmoid", ["x"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 4])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    data = save_rows(tmp_path / "c.npz")
    assert "no node that int8 can speed up" in optimize_refusal(build, model, data, tmp_path)


def test_a_batch_that_does_not_divide_the_samples_is_refused(build: Build, tmp_path: Path) -> None:
    model = dense()
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 5
    data = save_rows(tmp_path / "c.npz", count=32)
    inputs = [{"name": "x", "datatype": "FP32", "shape": [5, 4]}]
    said = optimize_refusal(build, model, data, tmp_path, inputs=inputs)
    assert "whole batches of 5" in said


def test_fp32_passes_through(build: Build, tmp_path: Path) -> None:
    path = save(dense(), tmp_path / "m.onnx")
    result = build("onnx", "optimize", {"model": path}, {"precision": "fp32"})
    assert result.outputs["model"].read_bytes() == path.read_bytes()


def scales_of(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


def quantized(build: Build, tmp_path: Path, params: dict[str, Any]) -> onnx.ModelProto:
    inputs = {
        "model": save(dense(), tmp_path / "m.onnx"),
        "calibration": save_rows(tmp_path / "c.npz", count=30),
    }
    return onnx.load(build("onnx", "optimize", inputs, params).outputs["model"])


@pytest.mark.parametrize("method", ["minmax", "entropy", "percentile"])
def test_every_calibration_method_works(build: Build, tmp_path: Path, method: str) -> None:
    model = quantized(build, tmp_path, INT8 | {"method": method, "percentile": 99.0})
    operators = [node.op_type for node in model.graph.node]
    assert "QuantizeLinear" in operators
    values = scales_of(model)
    weights = [node for node in model.graph.node if node.op_type == "DequantizeLinear"]
    (weight,) = [node for node in weights if values.get(node.input[0], np.ones(1)).ndim == 2]
    assert values[weight.input[0]].dtype == np.int8
    assert values[weight.input[1]].shape == (3,), "one scale for each output channel"


@pytest.mark.parametrize("per_channel", [True, False])
def test_a_reduced_range_leaves_weights_seven_bits(
    build: Build, tmp_path: Path, per_channel: bool
) -> None:
    """So that two products of u8 and s8 fit into the 16 bits of a CPU without VNNI."""

    def extent(params: dict[str, Any]) -> int:
        model = quantized(build, tmp_path, params)
        values = scales_of(model)
        inputs = {n.input[0] for n in model.graph.node if n.op_type == "DequantizeLinear"}
        (weight,) = [values[name] for name in inputs if name in values and values[name].ndim == 2]
        assert weight.dtype == np.int8
        return int(np.abs(weight.astype(int)).max())

    params = INT8 | {"perChannel": per_channel}
    assert extent(params) == 127
    assert extent(params | {"reduceRange": True}) == 64


def test_a_reduced_range_is_the_same_twice(build: Build, tmp_path: Path) -> None:
    first, second, whole = (
        quantized(build, tmp_path, params).SerializeToString(deterministic=True)
        for params in (INT8 | {"reduceRange": True},) * 2 + (INT8 | {"reduceRange": False},)
    )
    assert first == second
    assert first != whole
    assert whole == quantized(build, tmp_path, INT8).SerializeToString(deterministic=True)


def test_the_activation_type_suits_the_target(build: Build, tmp_path: Path) -> None:
    for activations in ("uint8", "int8"):
        model = quantized(build, tmp_path, INT8 | {"activations": activations})
        values = scales_of(model)
        points = {
            values[node.input[2]].dtype
            for node in model.graph.node
            if node.op_type == "QuantizeLinear"
        }
        assert points == {np.dtype(activations)}


def test_tensorrt_gets_signed_symmetric_pairs(build: Build, tmp_path: Path) -> None:
    model = quantized(build, tmp_path, TENSORRT)
    values = scales_of(model)
    pairs = [n for n in model.graph.node if n.op_type in {"QuantizeLinear", "DequantizeLinear"}]
    assert pairs
    for node in pairs:
        zero_point = values[node.input[2]]
        assert zero_point.dtype == np.int8, "TensorRT takes no uint8, and no int32 bias"
        assert not zero_point.any()


def test_raw_units_stay_in_float(build: Build, tmp_path: Path) -> None:
    """A table of columns that differ a millionfold survives int8: its scaling is not quantised."""
    scale = np.array([1e-3, 1.0, 1e3, 1e6], np.float32)
    rows = np.random.default_rng(1).normal(size=(64, 4)).astype(np.float32) * scale
    model = dense(helper.make_node("Div", ["x", "scale"], ["h"], name="standardise"))
    model.graph.initializer.append(numpy_helper.from_array(scale, "scale"))
    inputs = {
        "model": save(model, tmp_path / "m.onnx"),
        "calibration": save_rows(tmp_path / "c.npz", x=rows),
    }
    result = build("onnx", "optimize", inputs, INT8)
    made = onnx.load(result.outputs["model"])
    (division,) = [node for node in made.graph.node if node.op_type == "Div"]
    assert division.input[0] == "x"

    import onnxruntime

    def infer(path: Path) -> Any:
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        return session.run(None, {"x": rows})[0]

    expected, actual = infer(inputs["model"]), infer(result.outputs["model"])
    assert np.abs(expected - actual).max() < 0.05 * np.abs(expected).max()
