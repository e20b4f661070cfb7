"""The LiteRT engine, on small models built here with the schema's own classes."""

from __future__ import annotations

import random
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

import flatbuffers
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

from edgectl.engine.errors import EngineError, InputError, UnsupportedError
from edgectl.engine.litert import load
from edgectl.engine.options import EngineOptions

if TYPE_CHECKING:
    from pathlib import Path

WEIGHTS = np.array([[1, 2, 3], [-1, 0, 1]], np.float32)  # [out, in]


def tensor(name: str, shape: list[int], kind: int, buffer: int = 0, **more: Any) -> Any:
    found = schema.TensorT()
    found.name, found.shape, found.type, found.buffer = name.encode(), shape, kind, buffer
    for key, value in more.items():
        setattr(found, key, value)
    return found


def scaled(scale: float, zero_point: int) -> Any:
    found = schema.QuantizationParametersT()
    found.scale, found.zeroPoint = [scale], [zero_point]
    return found


def dense(batch: int = 1, *, free: bool = False) -> Any:
    """y = x W^T, of three numbers to two."""
    float32 = schema.TensorType.FLOAT32
    signature: dict[str, Any] = {"shapeSignature": [-1, 3]} if free else {}
    answer: dict[str, Any] = {"shapeSignature": [-1, 2]} if free else {}
    graph = schema.SubGraphT()
    graph.tensors = [
        tensor("x", [batch, 3], float32, **signature),
        tensor("w", [2, 3], float32, 1),
        tensor("y", [batch, 2], float32, **answer),
    ]
    graph.inputs, graph.outputs = [0], [2]
    node = schema.OperatorT()
    node.inputs, node.outputs = [0, 1, -1], [2]
    node.builtinOptionsType = schema.BuiltinOptions.FullyConnectedOptions
    node.builtinOptions = schema.FullyConnectedOptionsT()
    graph.operators = [node]
    return model(graph, schema.BuiltinOperator.FULLY_CONNECTED, WEIGHTS)


def relabel() -> Any:
    """int8 in, int8 out: RELU between a scale of 0.5 and zero point 10 on both sides."""
    int8 = schema.TensorType.INT8
    graph = schema.SubGraphT()
    graph.tensors = [
        tensor("x", [1, 4], int8, quantization=scaled(0.5, 10)),
        tensor("y", [1, 4], int8, quantization=scaled(0.5, 10)),
    ]
    graph.inputs, graph.outputs = [0], [1]
    node = schema.OperatorT()
    node.inputs, node.outputs = [0], [1]
    graph.operators = [node]
    return model(graph, schema.BuiltinOperator.RELU, np.zeros(0, np.float32))


def model(graph: Any, code: int, constant: np.ndarray) -> Any:
    found = schema.ModelT()
    found.version = 3
    operator = schema.OperatorCodeT()
    operator.builtinCode, operator.deprecatedBuiltinCode = code, min(code, 127)
    operator.version = 2 if code == schema.BuiltinOperator.RELU else 1
    found.operatorCodes = [operator]
    empty, full = schema.BufferT(), schema.BufferT()
    full.data = np.frombuffer(constant.tobytes(), np.uint8)
    found.subgraphs, found.buffers = [graph], [empty, full]
    return found


def saved(built: Any, folder: Path) -> Path:
    builder = flatbuffers.Builder(1024)
    builder.Finish(built.Pack(builder), file_identifier=b"TFL3")
    path = folder / "model.tflite"
    path.write_bytes(bytes(builder.Output()))
    return path


def session(path: Path) -> Any:
    return load(path, options=EngineOptions(), threads=1)


ROWS = np.arange(15, dtype=np.float32).reshape(5, 3)


@pytest.mark.parametrize("free", [True, False], ids=["resized", "row by row"])
def test_any_number_of_rows(tmp_path: Path, free: bool) -> None:
    loaded = session(saved(dense(free=free), tmp_path))
    assert loaded.engine.startswith("litert ")
    assert loaded.open_batch == free
    assert [spec.shape for spec in (*loaded.inputs, *loaded.outputs)] == [(-1, 3), (-1, 2)]
    for count in (1, 5, 0, 2):
        found = loaded.run({"x": ROWS[:count]})["y"]
        np.testing.assert_allclose(found, ROWS[:count] @ WEIGHTS.T)
        assert found.dtype == np.float32


def test_a_fixed_batch_stays_fixed(tmp_path: Path) -> None:
    loaded = session(saved(dense(batch=2), tmp_path))
    assert loaded.inputs[0].shape == (2, 3)
    np.testing.assert_allclose(loaded.run({"x": ROWS[:2]})["y"], ROWS[:2] @ WEIGHTS.T)
    with pytest.raises(InputError, match=r"\[5, 3\]"):
        loaded.run({"x": ROWS})


def test_a_quantised_boundary_is_presented_as_real_numbers(tmp_path: Path) -> None:
    loaded = session(saved(relabel(), tmp_path))
    assert [spec.datatype for spec in (*loaded.inputs, *loaded.outputs)] == ["FP32", "FP32"]
    # 0.25 lies halfway, and goes away from zero; 1000 and -1000 are cut at the ends of int8.
    given = np.array([[0.25, -3, 1000, 2.4]], np.float32)
    np.testing.assert_allclose(loaded.run({"x": given})["y"], [[0.5, 0, (127 - 10) / 2, 2.5]])


def test_several_threads_at_once(tmp_path: Path) -> None:
    loaded = session(saved(dense(free=True), tmp_path))
    wrong: list[int] = []

    def ask(count: int) -> None:
        for _ in range(50):
            found = loaded.run({"x": ROWS[:count]})["y"]
            if not np.allclose(found, ROWS[:count] @ WEIGHTS.T):
                wrong.append(count)

    threads = [threading.Thread(target=ask, args=(count,)) for count in (1, 2, 3, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_a_closed_model_says_so(tmp_path: Path) -> None:
    loaded = session(saved(dense(), tmp_path))
    loaded.close()
    with pytest.raises(EngineError, match="closed"):
        loaded.run({"x": ROWS[:1]})


def test_an_operator_that_litert_lacks_is_named(tmp_path: Path) -> None:
    built = dense()
    code = built.operatorCodes[0]
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.CUSTOM
    code.customCode = b"FlexAtan"
    built.subgraphs[0].operators[0].builtinOptions = None
    built.subgraphs[0].operators[0].builtinOptionsType = 0
    with pytest.raises(UnsupportedError, match="FlexAtan") as caught:
        session(saved(built, tmp_path))
    assert caught.value.operator == "FlexAtan"


@pytest.mark.parametrize("keep", [0, 3, 8, 40, 200, -4])
def test_a_cut_file_is_refused(tmp_path: Path, keep: int) -> None:
    path = saved(dense(), tmp_path)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(EngineError, match=r"damaged|not a TFLite model"):
        session(path)


def test_another_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="does not exist"):
        session(tmp_path / "model.tflite")
    (tmp_path / "model.tflite").write_bytes(b"\x08\x07ONNX" * 20)
    with pytest.raises(EngineError, match="does not start as one"):
        session(tmp_path / "model.tflite")


def test_a_constant_larger_than_its_buffer_is_refused(tmp_path: Path) -> None:
    built = dense()
    built.subgraphs[0].tensors[1].shape = [2000, 3]
    with pytest.raises(EngineError, match=r"constant 'w' of shape \[2000, 3\] has a buffer of 24"):
        session(saved(built, tmp_path))


def test_a_file_that_crashes_the_interpreter_crashes_only_the_trial(tmp_path: Path) -> None:
    """A convolution's code over options of a dense layer: LiteRT 2.3 reads them as its own."""
    built = dense()
    code = built.operatorCodes[0]
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.SPLIT
    with pytest.raises(EngineError):
        session(saved(built, tmp_path))


@pytest.mark.slow
def test_mutated_files_never_end_the_process(tmp_path: Path) -> None:
    """In a process of its own, which would show a crash that the trial let through."""
    data = saved(dense(free=True), tmp_path).read_bytes()
    rng = random.Random(0)
    files = []
    for index in range(25):
        mutated = bytearray(data)
        for _ in range(3):
            mutated[rng.randrange(8, len(mutated))] = rng.randrange(256)
        files.append(tmp_path / f"{index}.tflite")
        files[-1].write_bytes(mutated)
    code = (
        "import sys, pathlib\n"
        "from edgectl.engine.litert import load\n"
        "from edgectl.engine.errors import EngineError\n"
        "from edgectl.engine.options import EngineOptions\n"
        "for name in sys.argv[1:]:\n"
        "    try: load(pathlib.Path(name), options=EngineOptions(), threads=1).close()\n"
        "    except EngineError: pass\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, files)], capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
