"""What the ONNX builder makes for a target's hardware and its release of ONNX Runtime."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgectl.errors import ModelError
from edgectl.manifest.target import Quantization
from tests.builders.models import ROWS, SIGNATURE, dense, save, save_rows

if TYPE_CHECKING:
    from pathlib import Path

    from edgectl.build.runner import Result
    from tests.builders.conftest import Build

pytestmark = pytest.mark.slow  # making the toolchains takes minutes, once

FP16 = SIGNATURE | {"precision": "fp16", "cpuFeatures": ["asimd", "asimdhp"]}
DYNAMIC = SIGNATURE | {"precision": "int8", "scheme": "dynamic"}
STATIC = SIGNATURE | {"precision": "int8", "scheme": "static"}
GPU = ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"]


def optimized(
    build: Build, model: onnx.ModelProto, tmp_path: Path, params: dict[str, Any], **arrays: Any
) -> Result:
    inputs = {
        "model": save(model, tmp_path / "m.onnx"),
        "calibration": save_rows(tmp_path / "c.npz", **arrays),
    }
    return build("onnx", "optimize", inputs, params)


def made(
    build: Build, model: onnx.ModelProto, tmp_path: Path, params: dict[str, Any], **arrays: Any
) -> onnx.ModelProto:
    return onnx.load(optimized(build, model, tmp_path, params, **arrays).outputs["model"])


def refusal(
    build: Build, model: onnx.ModelProto, tmp_path: Path, params: dict[str, Any], **arrays: Any
) -> str:
    with pytest.raises(ModelError) as caught:
        optimized(build, model, tmp_path, params, **arrays)
    assert caught.value.hint
    return caught.value.message


def operators(model: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node]


def infer(model: onnx.ModelProto, rows: np.ndarray) -> np.ndarray:
    import onnxruntime

    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return np.asarray(session.run(None, {"x": rows})[0])


ROWS_OF_DATA = np.random.default_rng(1).normal(size=(32, 4)).astype(np.float32)


def test_half_keeps_the_declared_boundary(build: Build, tmp_path: Path) -> None:
    result = optimized(build, dense(), tmp_path, FP16)
    model = onnx.load(result.outputs["model"])
    for value in (*model.graph.input, *model.graph.output):
        assert value.type.tensor_type.elem_type == TensorProto.FLOAT
    assert {tensor.data_type for tensor in model.graph.initializer} == {TensorProto.FLOAT16}
    assert result.metadata["keptInFloat32"] == 0
    assert 0 < result.metadata["agreement"]["maxDifference"] < 0.01
    np.testing.assert_allclose(infer(model, ROWS_OF_DATA), infer(dense(), ROWS_OF_DATA), atol=0.01)


def test_half_is_the_same_twice(build: Build, tmp_path: Path) -> None:
    first, second = (
        made(build, dense(), tmp_path, FP16).SerializeToString(deterministic=True) for _ in "12"
    )
    assert first == second


@pytest.mark.parametrize(
    "params",
    [
        {"cpuFeatures": ["avx2", "fma"]},
        {"cpuFeatures": ["asimd"], "providers": ["CPUExecutionProvider"]},
        {"cpuFeatures": []},
    ],
    ids=["x86", "old arm", "unknown"],
)
def test_half_is_refused_where_it_gains_nothing(
    build: Build, tmp_path: Path, params: dict[str, Any]
) -> None:
    assert "without float16 arithmetic" in refusal(build, dense(), tmp_path, FP16 | params)


@pytest.mark.parametrize(
    "params", [{"providers": GPU}, {"engine": "tensorrt"}, {"cpuFeatures": ["avx512_fp16"]}]
)
def test_half_is_made_where_it_gains(build: Build, tmp_path: Path, params: dict[str, Any]) -> None:
    model = made(build, dense(), tmp_path, FP16 | {"cpuFeatures": ["avx2"]} | params)
    assert TensorProto.FLOAT16 in {tensor.data_type for tensor in model.graph.initializer}


def test_what_half_cannot_hold_stays_in_float(build: Build, tmp_path: Path) -> None:
    """Variance sums squares: 1000 squared is beyond 65504, its root is not."""
    nodes = (
        helper.make_node("Mul", ["x", "k"], ["big"]),
        helper.make_node("Mul", ["big", "big"], ["square"]),
        helper.make_node("Sqrt", ["square"], ["root"]),
        helper.make_node("Div", ["root", "k"], ["h"]),
    )
    model = dense(*nodes)
    model.graph.initializer.append(numpy_helper.from_array(np.array([1000], np.float32), "k"))
    result = optimized(build, model, tmp_path, FP16)
    assert result.metadata["keptInFloat32"] == 2
    half = onnx.load(result.outputs["model"])
    np.testing.assert_allclose(infer(half, ROWS_OF_DATA), infer(model, ROWS_OF_DATA), atol=0.02)


def test_outputs_beyond_half_are_kept(build: Build, tmp_path: Path) -> None:
    """An output of 10^5 is given in float32, as the node that makes it is kept there."""
    weights = np.full((4, 3), 1e5, np.float32)
    half = made(build, dense(weights=weights), tmp_path, FP16)
    expected = infer(dense(weights=weights), ROWS_OF_DATA)
    np.testing.assert_allclose(infer(half, ROWS_OF_DATA), expected, rtol=2e-3, atol=100)


def test_dynamic_needs_no_calibration(build: Build, tmp_path: Path) -> None:
    inputs = {"model": save(dense(), tmp_path / "m.onnx")}
    result = build("onnx", "optimize", inputs, DYNAMIC)
    model = onnx.load(result.outputs["model"])
    assert {"DynamicQuantizeLinear", "MatMulInteger"} <= set(operators(model))
    assert result.metadata == {"precision": "int8", "scheme": "dynamic", "integerProducts": 1}
    expected = infer(dense(), ROWS_OF_DATA)
    assert np.abs(infer(model, ROWS_OF_DATA) - expected).max() < 0.03 * np.abs(expected).max()
    again = build("onnx", "optimize", inputs, DYNAMIC)
    assert again.outputs["model"].read_bytes() == result.outputs["model"].read_bytes()


def test_dynamic_is_refused_for_tensorrt(build: Build, tmp_path: Path) -> None:
    params = DYNAMIC | {"providers": GPU}
    assert "TensorRT reads no dynamically" in refusal(build, dense(), tmp_path, params)


def test_dynamic_without_a_matrix_is_refused(build: Build, tmp_path: Path) -> None:
    graph = helper.make_graph(
        [helper.make_node("Sigmoid", ["x"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 4])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    assert "with constant weights" in refusal(build, model, tmp_path, DYNAMIC)


def widest(model: onnx.ModelProto) -> int:
    weights = [
        numpy_helper.to_array(tensor)
        for tensor in model.graph.initializer
        if tensor.data_type == TensorProto.INT8 and len(tensor.dims) == 2
    ]
    return max(int(np.abs(values.astype(int)).max()) for values in weights)


@pytest.mark.parametrize(
    ("features", "expected"),
    [
        (["avx2", "fma"], 64),
        (["avx2", "avx512f"], 64),
        (["avx2", "avx_vnni"], 127),
        (["avx512f", "avx512_vnni"], 127),
        (["asimd", "asimddp"], 127),
        ([], 127),
    ],
    ids=lambda value: "+".join(value) if isinstance(value, list) else "",
)
def test_weights_suit_the_instructions(
    build: Build, tmp_path: Path, features: list[str], expected: int
) -> None:
    """u8 by s8 in pairs saturates 16 bits without VNNI: the weights get 7 bits there."""
    assert widest(made(build, dense(), tmp_path, STATIC | {"cpuFeatures": features})) == expected


def test_what_suits_is_what_a_manifest_that_says_nothing_gets(build: Build, tmp_path: Path) -> None:
    said = Quantization.model_validate({"activations": "uint8"}).model_dump(by_alias=True)
    params = STATIC | said | {"cpuFeatures": ["avx2", "fma"]}
    assert widest(made(build, dense(), tmp_path, params)) == 64


def test_what_the_target_says_goes_before_what_suits(build: Build, tmp_path: Path) -> None:
    params = STATIC | {"cpuFeatures": ["avx2"], "reduceRange": False}
    assert widest(made(build, dense(), tmp_path, params)) == 127


def test_tensorrt_gets_signed_activations_unasked(build: Build, tmp_path: Path) -> None:
    model = made(build, dense(), tmp_path, STATIC | {"providers": GPU})
    types = {
        tensor.data_type
        for tensor in model.graph.initializer
        if tensor.data_type in (TensorProto.UINT8, TensorProto.INT8, TensorProto.INT32)
    }
    assert types == {TensorProto.INT8}


@pytest.mark.parametrize(
    ("version", "opset"),
    [(">=1.31", 21), (">=1.18", 21), (">=1.17,<2", 20), ("1.14", 18), (">=1.12", 17)],
)
def test_the_opset_is_one_that_the_oldest_release_reads(
    build: Build, tmp_path: Path, version: str, opset: int
) -> None:
    params = SIGNATURE | {"precision": "fp32", "engineVersion": version}
    model = made(build, dense(opset=21), tmp_path, params)
    assert model.opset_import[0].version == opset
    assert model.ir_version <= {21: 10, 20: 9, 18: 8, 17: 8}[opset]


def test_an_operator_that_the_oldest_release_lacks_is_named(build: Build, tmp_path: Path) -> None:
    model = dense(helper.make_node("Gelu", ["x"], ["h"], name="soft"), opset=20)
    params = SIGNATURE | {"precision": "fp32", "engineVersion": ">=1.14"}
    message = refusal(build, model, tmp_path, params)
    assert "ONNX Runtime 1.14, the oldest that the Target admits, reads up to opset 18" in message
    assert "(at soft)" in message


def test_a_release_before_all_others_is_refused(build: Build, tmp_path: Path) -> None:
    params = SIGNATURE | {"precision": "fp32", "engineVersion": "<2"}
    assert "before 1.8" in refusal(build, dense(), tmp_path, params)


def test_the_version_of_another_engine_is_its_own(build: Build, tmp_path: Path) -> None:
    params = SIGNATURE | {"precision": "fp32", "engine": "tensorrt", "engineVersion": ">=10.3"}
    assert made(build, dense(opset=21), tmp_path, params).opset_import[0].version == 21


def test_compression_is_core_mls(build: Build, tmp_path: Path) -> None:
    params = STATIC | {"compression": {"weights": "palettized", "bits": 4}}
    assert "no palettised" in refusal(build, dense(), tmp_path, params)


def test_constant_calibration_data_is_refused(build: Build, tmp_path: Path) -> None:
    message = refusal(build, dense(), tmp_path, STATIC, x=np.ones((8, 4), np.float32))
    assert "every value of array 'x' is 1" in message


def test_mislabelled_calibration_data_is_refused(build: Build, tmp_path: Path) -> None:
    arrays = {"x": None, "picture": np.ones((8, 4), np.float32)}
    message = refusal(build, dense(), tmp_path, STATIC | {"inputs": [ROWS]}, **arrays)
    assert "no array 'x'; it has 'picture'" in message
