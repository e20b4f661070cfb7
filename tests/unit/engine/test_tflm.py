"""TensorFlow Lite Micro as an engine: real files through the real interpreter."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from edgectl.engine.errors import EngineError, InputError, UnsupportedError
from edgectl.engine.session import load_session
from edgectl.engine.signature import TensorSpec
from edgectl.engine.tflm_file import read_model
from edgectl.engine.tflm_operators import OPERATORS
from tests.support import tflite

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from edgectl.engine.session import Session

ROWS = np.random.default_rng(1).normal(size=(40, 16)).astype(np.float32)


def opened(content: bytes, folder: Path) -> Session:
    (folder / "model.tflite").write_bytes(content)
    return load_session(folder, engine="tflm")


def test_presents_a_quantised_network_as_floats_with_any_number_of_rows(tmp_path: Path) -> None:
    layers = tflite.network()
    session = opened(tflite.dense(layers, ROWS), tmp_path)
    assert session.inputs == (TensorSpec("features", "FP32", (-1, 16)),)
    assert session.outputs == (TensorSpec("result", "FP32", (-1, 4)),)
    assert session.engine.startswith("tflm ")
    assert session.providers == ("cpu",)
    got = session.run({"features": ROWS})["result"]
    want = tflite.reference(layers, ROWS)
    assert got.dtype == np.float32
    assert np.abs(got - want).max() < 0.05 * np.abs(want).max()
    assert session.run({"features": ROWS[:0]})["result"].shape == (0, 4)


def test_a_row_is_the_same_alone_and_among_others(tmp_path: Path) -> None:
    session = opened(tflite.convolution(), tmp_path)
    images = np.random.default_rng(0).random((6, 12, 12, 1), dtype=np.float32)
    together = session.run({"image": images})["scores"]
    alone = [session.run({"image": image[None]})["scores"][0] for image in images]
    np.testing.assert_array_equal(together, alone)
    assert len(np.unique(together, axis=0)) > 1
    np.testing.assert_allclose(together.sum(axis=1), 1, atol=4 / 256)


def test_quantises_half_away_from_zero_and_saturates(tmp_path: Path) -> None:
    session = opened(tflite.unary("RESHAPE"), tmp_path)  # scale 0.5, zero point -3
    given = np.array([[0.25, -0.25, 0.74, 1e9], [-1e9, 0.75, -0.75, 0.24]], np.float32)
    want = np.array([[0.5, -0.5, 0.5, 65.0], [-62.5, 1.0, -1.0, 0.0]], np.float32)
    np.testing.assert_array_equal(session.run({"x": given})["y"], want)


def test_names_the_ends_by_their_tensors_where_there_is_no_signature(tmp_path: Path) -> None:
    session = opened(tflite.dense(tflite.network(), ROWS, named=False), tmp_path)
    assert session.inputs[0].name == "serving_default_features:0"
    assert session.outputs[0].name == "StatefulPartitionedCall:1"


def test_runs_a_float_model(tmp_path: Path) -> None:
    session = opened(tflite.unary("RELU", "FLOAT32"), tmp_path)
    given = np.array([[-1, 0.1, 2, -3]], np.float32)
    np.testing.assert_array_equal(session.run({"x": given})["y"], np.maximum(given, 0))


def test_a_larger_batch_in_the_file_stays_as_it_is(tmp_path: Path) -> None:
    def widen(model: Any) -> None:
        for tensor in model.subgraphs[0].tensors:
            tensor.shape = [3, 4]

    session = opened(tflite.edited(tflite.unary("RESHAPE"), widen), tmp_path)
    assert session.inputs[0].shape == (3, 4)
    with pytest.raises(InputError, match=r"shape \[2, 4\]"):
        session.run({"x": np.zeros((2, 4), np.float32)})
    assert session.run({"x": np.ones((3, 4), np.float32)})["y"].tolist() == [[1.0] * 4] * 3


def test_several_threads_get_each_their_own_answer(tmp_path: Path) -> None:
    session = opened(tflite.dense(tflite.network(), ROWS), tmp_path)
    want = session.run({"features": ROWS})["result"]
    with ThreadPoolExecutor(4) as pool:
        rows = [ROWS[n % 40 : n % 40 + 1] for n in range(200)]
        got = list(pool.map(lambda row: session.run({"features": row})["result"], rows))
    np.testing.assert_array_equal(np.concatenate(got), want[np.arange(200) % 40])


def test_every_row_starts_from_the_state_that_the_model_starts_in(tmp_path: Path) -> None:
    session = opened(tflite.accumulator(), tmp_path)
    given = np.ones((3, 4), np.float32)
    np.testing.assert_array_equal(session.run({"x": given})["total"], given)
    np.testing.assert_array_equal(session.run({"x": given})["total"], given)


def test_a_closed_session_says_so(tmp_path: Path) -> None:
    session = opened(tflite.unary("RESHAPE"), tmp_path)
    session.close()
    with pytest.raises(EngineError, match="closed"):
        session.run({"x": np.zeros((1, 4), np.float32)})


@pytest.mark.parametrize(
    ("content", "operator", "said"),
    [
        (tflite.unary("TOPK_V2"), "TOPK_V2", "has no operator 0 (TOPK_V2)"),
        (tflite.unary("MyOwn"), "MyOwn", "has no operator 0 (MyOwn)"),
        (tflite.unary("RELU", version=9), "RELU", "version 9 of operator 0 (RELU), its newest is"),
    ],
    ids=["builtin", "custom", "version"],
)
def test_names_the_operator_that_it_lacks(
    tmp_path: Path, content: bytes, operator: str, said: str
) -> None:
    with pytest.raises(UnsupportedError) as caught:
        opened(content, tmp_path)
    assert said in str(caught.value)
    assert caught.value.operator == operator
    assert caught.value.node == f"operator 0 ({operator})"


def _rescale(tensor: Any, scales: list[float]) -> None:
    tensor.quantization.scale, tensor.quantization.zeroPoint = scales, [0] * len(scales)


DAMAGE: dict[str, Callable[[Any, Any], None]] = {
    "input of an operator": lambda _, graph: setattr(graph.operators[0], "inputs", [99]),
    "output of the graph": lambda _, graph: setattr(graph, "outputs", [7]),
    "buffer of a tensor": lambda _, graph: setattr(graph.tensors[1], "buffer", 12),
    "operator code": lambda _, graph: setattr(graph.operators[0], "opcodeIndex", 3),
    "weights": lambda model, _: setattr(model.buffers[1], "data", model.buffers[1].data[:-1]),
    "size": lambda _, graph: setattr(graph.tensors[0], "shape", [1, -16]),
    "count of scales": lambda _, graph: _rescale(graph.tensors[1], [0.1] * 5),
    "scale": lambda _, graph: _rescale(graph.tensors[0], [float("nan")]),
    "graphs": lambda model, _: setattr(model, "subgraphs", []),
    "schema": lambda model, _: setattr(model, "version", 2),
}


@pytest.mark.parametrize("change", DAMAGE)
def test_refuses_a_file_that_leads_outside(tmp_path: Path, change: str) -> None:
    content = tflite.dense(tflite.network(), ROWS)
    damaged = tflite.edited(content, lambda model: DAMAGE[change](model, model.subgraphs[0]))
    with pytest.raises(EngineError, match=r"^model\.tflite is damaged: "):
        opened(damaged, tmp_path)


@pytest.mark.parametrize("content", [b"", b"TFL3", b"\0" * 64, b"onnx" * 99])
def test_refuses_what_is_no_tflite_file(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(EngineError, match="not a TFLite model"):
        opened(content, tmp_path)


_CUT = """
import sys
from pathlib import Path
from edgectl.engine.errors import EngineError
from edgectl.engine.session import load_session

path, refused, loaded = Path(sys.argv[1]), 0, 0
content = path.read_bytes()
for end in range(0, len(content), 23):
    path.write_bytes(content[:end])
    try:
        load_session(path, engine="tflm")
        loaded += 1
    except EngineError:
        refused += 1
print(refused, loaded)
"""


def test_a_truncated_file_is_an_error_and_not_a_crash(tmp_path: Path) -> None:
    path = tmp_path / "model.tflite"
    content = tflite.convolution()
    path.write_bytes(content)
    done = subprocess.run(
        [sys.executable, "-c", _CUT, path], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    refused, loaded = map(int, done.stdout.split())
    assert refused + loaded == len(range(0, len(content), 23))
    assert loaded <= 1  # the last bytes of a file can be padding


_PROBE = """
import os, sys
from tests.support import tflite
from tflite_micro import runtime

for name, number in vars(tflite.schema.BuiltinOperator).items():
    if not isinstance(number, int) or name == "CUSTOM":
        continue
    with open(sys.argv[1], "w+b") as file:
        child = os.fork()  # a kernel that misses an input can crash
        if not child:
            os.dup2(file.fileno(), 2)
            try:
                runtime.Interpreter.from_bytes(tflite.unary(name), arena_size=1 << 16)
            finally:
                os._exit(0)
        os.waitpid(child, 0)
        file.seek(0)
        if b"Didn't find op" not in file.read():
            print(name)
"""


@pytest.mark.slow
def test_the_table_of_operators_is_the_interpreters(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _PROBE, tmp_path / "log"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert set(done.stdout.split()) == set(OPERATORS)


def test_reads_what_a_file_says_of_its_tensors() -> None:
    model = read_model(tflite.convolution(), "it")
    kernel = model.main.tensors[model.main.operators[1].inputs[1]]
    assert (kernel.type, kernel.shape, kernel.axis) == ("INT8", (1, 3, 3, 8), 3)
    assert (len(kernel.scales), kernel.zero_points) == (8, (0,) * 8)
    assert kernel.constant
    assert kernel.nbytes == 72
    assert [operator.name for operator in model.operators] == [
        "CONV_2D", "DEPTHWISE_CONV_2D", "MEAN", "FULLY_CONNECTED", "SOFTMAX",
    ]  # fmt: skip


@pytest.mark.parametrize("shape", [[1, 2**31 - 1, 2**20], [2**31 - 1] * 3])
def test_a_size_that_no_memory_holds_is_an_error(tmp_path: Path, shape: list[int]) -> None:
    def widen(model: Any) -> None:
        for tensor in model.subgraphs[0].tensors:
            tensor.shape = shape

    with pytest.raises(EngineError, match="does not load"):
        opened(tflite.edited(tflite.unary("RESHAPE"), widen), tmp_path)
