"""The TensorRT builder, in its own environment: recipes, refusals, and what a host measures."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgectl.engine.recipe import Batch, Dla, Pins, Recipe
from edgectl.errors import ModelError
from tests.builders.models import SIGNATURE, dense, save, save_rows
from tests.support.models import write_linear

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from edgectl.build.runner import Result
    from tests.builders.conftest import Build

pytestmark = pytest.mark.slow  # making the toolchains takes minutes, once
TARGET = {
    "engine": "tensorrt", "engineVersion": ">=10.3", "precision": "fp32", "device": "GPU",
    "format": "onnx", **SIGNATURE,
}  # fmt: skip
QUANTIZED = {
    "precision": "int8", "activations": "int8", "weights": "int8", "symmetricActivations": True,
    "perChannel": True, "reduceRange": False, "method": "minmax",
}  # fmt: skip

_DATATYPES = {TensorProto.FLOAT16: "FP16", TensorProto.DOUBLE: "FP64", TensorProto.INT64: "INT64"}


def compiled(build: Build, model: onnx.ModelProto, tmp_path: Path, **params: Any) -> Result:
    path = save(model, tmp_path / "optimised.onnx")
    return build("tensorrt", "compile", {"model": path}, TARGET | declared(model) | params)


def declared(model: onnx.ModelProto) -> dict[str, Any]:
    """What a manifest that says what is in the file declares."""

    def specs(values: Any) -> list[dict[str, Any]]:
        types = [(value.name, value.type.tensor_type) for value in values]
        return [
            {
                "name": name,
                "datatype": _DATATYPES.get(tensor.elem_type, "FP32"),
                "shape": [size.dim_value or -1 for size in tensor.shape.dim],
            }
            for name, tensor in types
        ]

    return {"inputs": specs(model.graph.input), "outputs": specs(model.graph.output)}


def test_a_model_that_the_manifest_does_not_declare_is_refused(
    build: Build, tmp_path: Path
) -> None:
    other = {"outputs": [SIGNATURE["outputs"][0] | {"datatype": "FP16"}]}
    assert "'y' is float32 [-1, 3] in the model" in refusal(build, dense(), tmp_path, **other)


def recipe_of(result: Result) -> Recipe:
    return Recipe.from_bytes(result.outputs["model/recipe.json"].read_bytes())


def refusal(build: Build, model: onnx.ModelProto, tmp_path: Path, **params: Any) -> str:
    with pytest.raises(ModelError) as caught:
        compiled(build, model, tmp_path, **params)
    assert caught.value.hint
    return f"{caught.value.message} {caught.value.hint}"


def graph(*nodes: onnx.NodeProto, opset: int = 19, **constants: Any) -> onnx.ModelProto:
    """Nodes from `x` [n, 4] to `y` [n, 4]."""
    tensors = [numpy_helper.from_array(np.asarray(v), k) for k, v in constants.items()]
    info = helper.make_tensor_value_info
    made = helper.make_graph(
        list(nodes), "g", [info("x", TensorProto.FLOAT, ["n", 4])],
        [info("y", TensorProto.FLOAT, ["n", 4])], tensors,
    )  # fmt: skip
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(made, opset_imports=opsets, ir_version=9)


def pair(zero_point: Any) -> onnx.ModelProto:
    return graph(
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"], name="quantise"),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"], name="restore"),
        s=np.float32(0.1), z=zero_point,
    )  # fmt: skip


def test_what_the_onnx_builder_quantised_gets_a_recipe(build: Build, tmp_path: Path) -> None:
    model = save(dense(), tmp_path / "m.onnx")
    rows = save_rows(tmp_path / "rows.npz")
    made = build("onnx", "import", {"source": model}, SIGNATURE).outputs["model"]
    quantized = build(
        "onnx", "optimize", {"model": made, "calibration": rows}, SIGNATURE | QUANTIZED
    ).outputs["model"]
    params = TARGET | QUANTIZED | {"workspace": 1 << 28}
    first, again = (build("tensorrt", "compile", {"model": quantized}, params) for _ in range(2))
    assert {name: path.read_bytes() for name, path in first.outputs.items()} == {
        name: path.read_bytes() for name, path in again.outputs.items()
    }
    assert set(first.outputs) >= {"model/model.onnx", "model/recipe.json"}
    assert first.outputs["model/model.onnx"].read_bytes() == quantized.read_bytes()
    assert recipe_of(first) == Recipe(
        "int8", batch=Batch(1, 1, 16), workspace=1 << 28, minimum_version="10.0"
    )
    assert first.metadata["recipe"]["stronglyTyped"]
    assert str(tmp_path) not in first.outputs["model/recipe.json"].read_text()


def test_a_fixed_batch_has_no_profile(build: Build, tmp_path: Path) -> None:
    model = dense()
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 2
    assert recipe_of(compiled(build, model, tmp_path)).batch is None


def half(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same with weights, inputs and outputs in fp16."""
    for tensor in model.graph.initializer:
        tensor.CopyFrom(
            numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float16), tensor.name)
        )
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.elem_type = TensorProto.FLOAT16
    return model


def test_a_dla_takes_fp16_and_one_size(build: Build, tmp_path: Path) -> None:
    result = compiled(build, half(dense()), tmp_path, precision="fp16", device="DLA:1")
    recipe = recipe_of(result)
    assert recipe.dla == Dla(1, gpu_fallback=True)
    assert recipe.batch == Batch(1, 1, 1)
    assert not recipe.strongly_typed
    said = refusal(build, dense(), tmp_path, device="DLA:0")
    assert "a DLA runs fp16" in said
    assert "no device 'NPU'" in refusal(build, dense(), tmp_path, device="NPU")


def test_operators_that_tensorrt_does_not_read_are_named(build: Build, tmp_path: Path) -> None:
    model = graph(helper.make_node("Unique", ["x"], ["y"], name="distinct"))
    said = refusal(build, model, tmp_path)
    assert "operator Unique (node 'distinct')" in said
    assert "post-processing" in said
    foreign = helper.make_node("FusedGemm", ["x", "x"], ["y"], domain="com.microsoft", name="f")
    assert "com.microsoft:FusedGemm (node 'f')" in refusal(build, graph(foreign), tmp_path)


def test_operators_that_only_a_newer_tensorrt_reads(build: Build, tmp_path: Path) -> None:
    window = helper.make_node("HannWindow", ["size"], ["w"], name="window")
    model = graph(window, helper.make_node("Mul", ["x", "w"], ["y"]), size=np.int64(4))
    said = refusal(build, model, tmp_path, engineVersion=">=10.3")
    assert "HannWindow (node 'window') from 10.4 on; the target allows 10.3" in said
    recipe = recipe_of(compiled(build, model, tmp_path, engineVersion=">=10.4, <11"))
    assert recipe.minimum_version == "10.4"


@pytest.mark.parametrize(
    ("zero_point", "said"),
    [
        (np.uint8(0), "'quantise' quantises to UINT8"),
        (np.int8(3), "'quantise' has a zero point that is not 0"),
    ],
)
def test_quantisation_that_is_not_signed_and_symmetric(
    build: Build, tmp_path: Path, zero_point: Any, said: str
) -> None:
    text = refusal(build, pair(zero_point), tmp_path, precision="int8")
    assert said in text
    assert "symmetricActivations: true" in text


def test_quantisation_without_a_zero_point_is_unsigned(build: Build, tmp_path: Path) -> None:
    model = graph(
        helper.make_node("QuantizeLinear", ["x", "s"], ["q"], name="quantise"),
        helper.make_node("DequantizeLinear", ["q", "s"], ["y"], name="restore"),
        s=np.float32(0.1),
    )
    assert "UINT8" in refusal(build, model, tmp_path, precision="int8")
    compiled(build, pair(np.int8(0)), tmp_path, precision="int8")


def test_a_precision_that_the_model_is_not_in(build: Build, tmp_path: Path) -> None:
    assert "no QuantizeLinear" in refusal(build, dense(), tmp_path, precision="int8")
    assert "no tensor of the model is fp16" in refusal(build, dense(), tmp_path, precision="fp16")
    assert "not int4" in refusal(build, dense(), tmp_path, precision="int4")


def test_shapes_types_and_opsets_that_tensorrt_cannot_have(build: Build, tmp_path: Path) -> None:
    model = dense()
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_param = "width"
    assert "leaves more than its batch open" in refusal(build, model, tmp_path)
    model = dense()
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.DOUBLE
    assert "'x' is DOUBLE" in refusal(build, model, tmp_path)
    model = dense()
    model.opset_import[0].version = 25
    assert "opset 25; TensorRT reads 9 to 24" in refusal(build, model, tmp_path)


def test_a_damaged_file_and_weights_that_are_missing(build: Build, tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(b"\xff\xff not onnx")
    with pytest.raises(ModelError, match="not a readable ONNX file"):
        build("tensorrt", "compile", {"model": tmp_path / "m.onnx"}, TARGET)
    model = dense()
    onnx.save_model(
        model, tmp_path / "large.onnx", save_as_external_data=True, location="large.data",
        size_threshold=0,
    )  # fmt: skip
    result = build("tensorrt", "compile", {"model": tmp_path / "large.onnx"}, TARGET)
    assert "model/large.data" in result.outputs
    (tmp_path / "large.data").unlink()
    with pytest.raises(ModelError, match=r"'large\.data' are not beside the model"):
        build("tensorrt", "compile", {"model": tmp_path / "large.onnx"}, TARGET)


# -- engines that are built already --------------------------------------------------------


def passed(build: Build, data: bytes, tmp_path: Path, **params: Any) -> Result:
    (tmp_path / "m.engine").write_bytes(data)
    said = TARGET | {"format": "tensorrt", "precision": "fp16", "engineVersion": "==10.3.0",
                     "computeCapability": "8.7"}  # fmt: skip
    return build("tensorrt", "optimize", {"source": tmp_path / "m.engine"}, said | params)


ENGINE = b"ftrt" + bytes(range(200))


def test_an_engine_passes_through_with_its_pins(build: Build, tmp_path: Path) -> None:
    result = passed(build, ENGINE, tmp_path)
    assert result.outputs["model/model.plan"].read_bytes() == ENGINE
    assert recipe_of(result).pins == Pins("10.3.0", "8.7")
    assert result.metadata["pins"] == {"tensorrt": "10.3.0", "computeCapability": "8.7"}


@pytest.mark.parametrize(
    ("data", "params", "said"),
    [
        (ENGINE, {"engineVersion": ">=10.3"}, "the target allows >=10.3"),
        (ENGINE, {"engineVersion": "==10"}, "the target allows ==10"),
        (ENGINE, {"computeCapability": None}, "compute capability"),
        (b"PK\x03\x04" + bytes(100), {}, "does not begin as"),
        (b"ftrt", {}, "cut short"),
        (b"", {}, "cut short"),
    ],
)
def test_an_engine_that_is_none_or_not_pinned(
    build: Build, tmp_path: Path, data: bytes, params: Mapping[str, Any], said: str
) -> None:
    with pytest.raises(ModelError, match=said) as caught:
        passed(build, data, tmp_path, **params)
    assert caught.value.hint


def test_a_directory_is_no_engine(build: Build, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    params = TARGET | {"engineVersion": "==10.3.0", "computeCapability": "8.7"}
    with pytest.raises(ModelError, match="is a directory"):
        build("tensorrt", "optimize", {"source": tmp_path / "model"}, params)


# -- evaluation ----------------------------------------------------------------------------

IMAGE = {"name": "x", "datatype": "FP32", "shape": [-1, 3, 16, 16]}
CLASSES = {"name": "y", "datatype": "FP32", "shape": [-1, 10]}
EVALUATION = {
    "task": "classification", "labels": "labels", "inputs": [IMAGE], "outputs": [CLASSES],
    "engine": "tensorrt", "threads": 1, "device": "GPU", "precision": "int8",
}  # fmt: skip


class Mixed:
    """A small CNN with int8 convolutions whose scales, biases and activations are fp16."""

    def __init__(self) -> None:
        self._rng = np.random.default_rng(1)
        self._nodes = [helper.make_node("Cast", ["x"], ["c"], to=TensorProto.FLOAT16)]
        self._constants: list[onnx.TensorProto] = []
        current, width = "c", 3
        for layer in range(3):
            current, width = self._convolution(str(layer), current, width), 16
        self._node("GlobalAveragePool", [current], "g")
        self._node("Flatten", [self._pair("g", 0.02)], "f")
        weight = self._rng.standard_normal((16, 10)).astype(np.float32) * 0.3
        self._node("MatMul", ["f", self._weight("m", weight, axis=1)], "l")
        self._nodes.append(helper.make_node("Cast", ["l"], ["y"], to=TensorProto.FLOAT))

    def save(self, directory: Path) -> Path:
        info = helper.make_tensor_value_info
        made = helper.make_graph(
            self._nodes, "mixed", [info("x", TensorProto.FLOAT, ["n", 3, 16, 16])],
            [info("y", TensorProto.FLOAT, ["n", 10])], self._constants,
        )  # fmt: skip
        opsets = [helper.make_opsetid("", 19)]
        directory.mkdir()
        path = save(
            helper.make_model(made, opset_imports=opsets, ir_version=9), directory / "model.onnx"
        )
        (directory / "recipe.json").write_bytes(Recipe("int8", batch=Batch(1, 1, 16)).to_bytes())
        return path

    def _node(self, kind: str, inputs: list[str], output: str, **attributes: Any) -> str:
        self._nodes.append(helper.make_node(kind, inputs, [output], **attributes))
        return output

    def _constant(self, name: str, value: Any) -> str:
        self._constants.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def _pair(self, source: str, scale: float) -> str:
        s = self._constant(f"{source}s", np.float16(scale))
        z = self._constant(f"{source}z", np.int8(0))
        self._node("QuantizeLinear", [source, s, z], f"{source}q")
        return self._node("DequantizeLinear", [f"{source}q", s, z], f"{source}d")

    def _weight(self, name: str, values: Any, axis: int) -> str:
        others = tuple(i for i in range(values.ndim) if i != axis)
        scale = np.abs(values).max(axis=others) / 127
        shape = [-1 if i == axis else 1 for i in range(values.ndim)]
        stored = np.round(values / scale.reshape(shape)).astype(np.int8)
        inputs = [
            self._constant(f"{name}w", stored),
            self._constant(f"{name}ws", scale.astype(np.float16)),
            self._constant(f"{name}wz", np.zeros(len(scale), np.int8)),
        ]
        return self._node("DequantizeLinear", inputs, f"{name}wd", axis=axis)

    def _convolution(self, name: str, source: str, width: int) -> str:
        values = self._rng.standard_normal((16, width, 3, 3)).astype(np.float32) * 0.2
        bias = self._constant(f"{name}b", (self._rng.standard_normal(16) * 0.1).astype(np.float16))
        inputs = [self._pair(source, 0.03), self._weight(name, values, axis=0), bias]
        self._node("Conv", inputs, f"{name}y", pads=[1, 1, 1, 1])
        return self._node("Relu", [f"{name}y"], f"{name}r")


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The model directory, and pictures with the labels that the honest model gives."""
    import onnxruntime

    directory = tmp_path_factory.mktemp("mixed")
    file = Mixed().save(directory / "model")
    pictures = np.random.default_rng(0).standard_normal((64, 3, 16, 16)).astype(np.float32)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    labels = session.run(["y"], {"x": pictures})[0].argmax(axis=1)
    np.savez(directory / "test.npz", x=pictures, labels=labels)
    return file.parent, directory / "test.npz"


def test_evaluated_without_the_optimisations_that_corrupt_it(
    build: Build, mixed: tuple[Path, Path]
) -> None:
    model, data = mixed
    result = build("tensorrt", "evaluate", {"model": model, "evaluation": data}, EVALUATION)
    found = result.metadata
    assert found["metrics"]["accuracy"] == 1.0
    assert found["samples"] == 64
    assert "measured" not in found
    assert "device" in found["left"]
    assert found["optimizations"]["used"] == "none"
    assert found["optimizations"]["compared"] == "all"
    assert found["sizeBytes"] >= (model / "model.onnx").stat().st_size
    assert found["host"]["engine"].startswith("onnxruntime ")


@pytest.fixture
def evaluating() -> Iterator[Any]:
    """The builder's own module, in this process."""
    folder = Path(__file__).parents[2] / "builders" / "tensorrt"
    sys.path.insert(0, str(folder))
    try:
        yield importlib.import_module("evaluating")
    finally:
        sys.path.remove(str(folder))
        sys.modules.pop("evaluating", None)


def test_extended_optimisations_compute_int8_with_fp16_wrongly(
    mixed: tuple[Path, Path], evaluating: Any
) -> None:
    """Why: on this very model ONNX Runtime answers noise, and says nothing. If this fails, ONNX
    Runtime has been mended, and the comparison may go."""
    model, data = mixed
    extended = evaluating.compare(model / "model.onnx", data, "extended")
    assert extended["corrupts"]
    assert extended["sqnr"] < 3
    basic = evaluating.compare(model / "model.onnx", data, "basic")
    assert not basic["corrupts"]
    assert basic["sqnr"] > 40


@pytest.mark.parametrize("batch", ["N", 1, 5, 40])
def test_optimisations_are_compared_in_whole_batches(
    tmp_path: Path, batch: int | str, evaluating: Any
) -> None:
    model = write_linear(tmp_path / "model.onnx", batch=batch)
    save_rows(tmp_path / "rows.npz", x=np.ones((40, 3), np.float32))
    assert not evaluating.compare(model, tmp_path / "rows.npz")["corrupts"]


def test_an_engine_is_not_run_on_the_host(build: Build, tmp_path: Path) -> None:
    engine = passed(build, ENGINE, tmp_path).outputs["model/model.plan"].parent
    rows = save_rows(tmp_path / "rows.npz", labels=np.zeros(32, np.int64))
    params = EVALUATION | SIGNATURE
    result = build("tensorrt", "evaluate", {"model": engine, "evaluation": rows}, params)
    assert result.metadata["metrics"] == {}
    assert result.metadata["sizeBytes"] >= len(ENGINE)
    assert "golden data" in result.metadata["deferred"]
    assert json.dumps(result.metadata)
