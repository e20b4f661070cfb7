"""What the ONNX builder makes of sources of every shape: old, spread over files, free, hostile."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgectl.errors import ModelError
from tests.builders.models import ROWS, SCORES, SIGNATURE, dense, save, save_rows

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.builders.conftest import Build

pytestmark = pytest.mark.slow  # making the toolchains takes minutes, once


def imported(build: Build, source: Path, **params: Any) -> onnx.ModelProto:
    result = build("onnx", "import", {"source": source}, SIGNATURE | params)
    return onnx.load(result.outputs["model"])


def refusal(build: Build, source: Path, **params: Any) -> str:
    with pytest.raises(ModelError) as caught:
        imported(build, source, **params)
    assert caught.value.hint
    assert "builder 'onnx'" in caught.value.message
    return caught.value.message


def spread(directory: Path, model: onnx.ModelProto | None = None) -> Path:
    """A directory with a model and its weights in a file beside it."""
    directory.mkdir()
    onnx.save_model(
        model or dense(),
        directory / "model.onnx",
        save_as_external_data=True,
        location="weights.bin",
        size_threshold=0,
    )
    return directory


@pytest.mark.parametrize("opset", [7, 8, 9, 11, 12])
def test_an_old_opset_is_upgraded(build: Build, tmp_path: Path, opset: int) -> None:
    model = dense(opset=opset)
    model.ir_version = 3
    constants = [
        helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
        for tensor in model.graph.initializer
    ]
    model.graph.input.extend(constants)  # as IR 3 wants it
    made = imported(build, save(model, tmp_path / "m.onnx"))
    assert [(entry.domain, entry.version) for entry in made.opset_import] == [("", 17)]
    assert [value.name for value in made.graph.input] == ["x"]


def test_an_opset_that_nothing_reads_is_refused(build: Build, tmp_path: Path) -> None:
    assert "oldest that is read is 7" in refusal(build, save(dense(opset=6), tmp_path / "m.onnx"))


def test_a_model_that_does_not_run_is_refused(build: Build, tmp_path: Path) -> None:
    node = helper.make_node("Scatter", ["x", "i", "x"], ["h"], name="old")
    model = dense(node, opset=9)
    model.graph.initializer.append(numpy_helper.from_array(np.zeros((1, 4), np.int64), "i"))
    assert "fails to run it" in refusal(build, save(model, tmp_path / "m.onnx"))


def test_weights_of_constant_nodes_become_initializers(build: Build, tmp_path: Path) -> None:
    model = dense()
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    del model.graph.initializer[:]
    model.graph.node.insert(0, helper.make_node("Constant", [], ["w"], value=weights["w"]))
    shape = numpy_helper.from_array(np.array([3], np.int64), "shape")
    one = helper.make_tensor("one", TensorProto.FLOAT, [1], [1.0])
    model.graph.node.insert(1, helper.make_node("ConstantOfShape", ["shape"], ["b"], value=one))
    model.graph.initializer.append(shape)
    made = imported(build, save(model, tmp_path / "m.onnx"))
    assert {node.op_type for node in made.graph.node} <= {"MatMul", "Add", "Relu", "Gemm"}
    assert sum(len(tensor.dims) and int(np.prod(tensor.dims)) for tensor in made.graph.initializer)


def test_weights_beside_the_model_become_one_file(build: Build, tmp_path: Path) -> None:
    inside = imported(build, save(dense(), tmp_path / "m.onnx"))
    outside = imported(build, spread(tmp_path / "d"))
    assert outside.SerializeToString(deterministic=True) == inside.SerializeToString(
        deterministic=True
    )


def located(**entries: str) -> Callable[[onnx.ModelProto], None]:
    def change(model: onnx.ModelProto) -> None:
        for entry in model.graph.initializer[0].external_data:
            entry.value = entries.get(entry.key, entry.value)

    return change


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (located(location="../../../../etc/passwd"), "not a file of the model's directory"),
        (located(location="/etc/passwd"), "not a file of the model's directory"),
        (located(location="other.bin"), "not a file of the model's directory"),
        (located(offset=str(1 << 40)), "which has"),
        (located(offset="-4"), "from -4 of"),
        (located(length="9"), "its shape [4, 3] needs 48"),
        (located(offset="zero"), "at no number"),
    ],
    ids=["parent", "absolute", "missing", "past the end", "negative", "length", "no number"],
)
def test_weights_that_are_not_where_they_should_be_are_refused(
    build: Build, tmp_path: Path, change: Callable[[onnx.ModelProto], None], said: str
) -> None:
    directory = spread(tmp_path / "d")
    model = onnx.load_model(directory / "model.onnx", load_external_data=False)
    change(model)
    save(model, directory / "model.onnx")
    message = refusal(build, directory)
    assert said in message
    assert "(at w)" in message


def test_a_link_out_of_the_directory_is_refused(build: Build, tmp_path: Path) -> None:
    directory = spread(tmp_path / "d")
    (directory / "weights.bin").unlink()
    (directory / "weights.bin").symlink_to("/etc/passwd")
    assert "leads outside" in refusal(build, directory)


def test_three_gigabytes_of_weights_are_refused_unread(build: Build, tmp_path: Path) -> None:
    """The file is sparse: reading it would take memory that many machines do not have."""
    directory = spread(tmp_path / "d")
    model = onnx.load_model(directory / "model.onnx", load_external_data=False)
    big = model.graph.initializer[0]
    big.dims[:] = [1024, 768 * 1024]
    located(offset="0", length=str(3 << 30))(model)
    save(model, directory / "model.onnx")
    with (directory / "weights.bin").open("r+b") as file:
        file.truncate(3 << 30)
    message = refusal(build, directory)
    assert f"{3 << 30}" in message
    assert "one ONNX file holds" in message


def test_a_directory_without_one_model_is_refused(build: Build, tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    assert "not one other .onnx file: none" in refusal(build, tmp_path / "d")
    save(dense(), tmp_path / "d/a.onnx")
    save(dense(), tmp_path / "d/b.onnx")
    assert "'a.onnx', 'b.onnx'" in refusal(build, tmp_path / "d")


def first_dimension(model: onnx.ModelProto) -> int | str:
    dimension = model.graph.input[0].type.tensor_type.shape.dim[0]
    return dimension.dim_param or int(dimension.dim_value)


def test_dimensions_are_as_free_as_declared(build: Build, tmp_path: Path) -> None:
    source = save(dense(), tmp_path / "m.onnx")
    assert first_dimension(imported(build, source)) == "batch"
    fixed = imported(
        build, source, inputs=[ROWS | {"shape": [2, 4]}], outputs=[SCORES | {"shape": [2, 3]}]
    )
    assert first_dimension(fixed) == 2
    (output,) = fixed.graph.output
    assert [d.dim_value for d in output.type.tensor_type.shape.dim] == [2, 3]


def broken(change: Callable[[onnx.GraphProto], None]) -> onnx.ModelProto:
    model = dense()
    change(model.graph)
    return model


def shorten(graph: onnx.GraphProto) -> None:
    graph.initializer[0].raw_data = graph.initializer[0].raw_data[:-4]


def overflow(graph: onnx.GraphProto) -> None:
    graph.initializer[0].dims[:] = [1 << 40, 1 << 40]


def negative(graph: onnx.GraphProto) -> None:
    graph.initializer[0].dims[:] = [-4, -3]


def untyped(graph: onnx.GraphProto) -> None:
    graph.initializer[0].data_type = 99


def cycle(graph: onnx.GraphProto) -> None:
    graph.node[0].input[0] = "a"


def dangling(graph: onnx.GraphProto) -> None:
    graph.node[0].input[0] = "nowhere"


def same_tensor(graph: onnx.GraphProto) -> None:
    graph.node.append(helper.make_node("Identity", ["x"], ["y"]))


def same_output(graph: onnx.GraphProto) -> None:
    graph.output.append(graph.output[0])


def huge(graph: onnx.GraphProto) -> None:
    graph.initializer.append(
        numpy_helper.from_array(np.array([1 << 20, 1 << 20], np.int64), "shape")
    )
    graph.node.append(helper.make_node("ConstantOfShape", ["shape"], ["much"], name="fill"))
    graph.node.append(helper.make_node("ReduceMean", ["much"], ["mean"]))
    graph.output.append(helper.make_tensor_value_info("mean", TensorProto.FLOAT, [1, 1]))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (shorten, "has 44 bytes, its shape [4, 3] needs 48 (at w)"),
        (overflow, "one ONNX file holds"),
        (negative, "has the shape [-4, -3] (at w)"),
        (untyped, "has the datatype 99 (at w)"),
        (cycle, "has a cycle, or is out of order (at start)"),
        (dangling, "'nowhere', which nothing computes (at start)"),
        (same_tensor, "two tensors of the model have the name 'y'"),
        (same_output, "two outputs of the model have the name 'y'"),
        (huge, "tensor 'much' would be 4398046511104 bytes (at fill)"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_hostile_graph_is_refused(
    build: Build, tmp_path: Path, change: Callable[[onnx.GraphProto], None], said: str
) -> None:
    outputs = [SCORES, {"name": "mean", "datatype": "FP32", "shape": [1, 1]}]
    params = {"outputs": outputs} if change is huge else {}
    assert said in refusal(build, save(broken(change), tmp_path / "m.onnx"), **params)


def test_graphs_in_graphs_without_end_are_refused(build: Build, tmp_path: Path) -> None:
    def within(tag: int, data: bytes) -> bytes:
        size, length = len(data), bytearray()
        while size > 0x7F:
            length.append(size & 0x7F | 0x80)
            size >>= 7
        return bytes([tag << 3 | 2, *length, size]) + data

    graph = b""
    for _ in range(5000):
        graph = within(1, within(5, within(6, graph)))  # GraphProto.node.attribute.g
    (tmp_path / "m.onnx").write_bytes(b"\x08\x08" + within(7, graph))
    assert "not a valid ONNX model" in refusal(build, tmp_path / "m.onnx")


def test_a_truncated_file_is_refused(build: Build, tmp_path: Path) -> None:
    data = dense().SerializeToString()
    (tmp_path / "m.onnx").write_bytes(data[: len(data) // 2])
    assert "not a valid ONNX model" in refusal(build, tmp_path / "m.onnx")


@pytest.mark.parametrize(
    ("scale", "offset"), [(255.0, 0.0), (1 / 255, 0.0), (1.0, 100.0)], ids=["255", "1/255", "apart"]
)
def test_calibration_data_of_another_range_is_refused(
    build: Build, tmp_path: Path, scale: float, offset: float
) -> None:
    rows = np.random.default_rng(2).random((64, 4)).astype(np.float32)
    inputs = {
        "source": save(dense(), tmp_path / "m.onnx"),
        "evaluation": save_rows(tmp_path / "e.npz", x=rows),
        "calibration": save_rows(tmp_path / "c.npz", x=rows * np.float32(scale) + offset),
    }
    with pytest.raises(ModelError, match=r"c\.npz: array 'x' goes from .* in the evaluation data"):
        build("onnx", "import", inputs, SIGNATURE)


def test_calibration_data_of_another_sample_is_taken(build: Build, tmp_path: Path) -> None:
    inputs = {
        "source": save(dense(), tmp_path / "m.onnx"),
        "evaluation": save_rows(tmp_path / "e.npz"),
        "calibration": save_rows(tmp_path / "c.npz", count=8),
    }
    assert build("onnx", "import", inputs, SIGNATURE).metadata["agreement"]["samples"] == 32
