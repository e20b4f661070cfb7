from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np
import pytest
from onnx import TensorProto, helper

from edgectl.engine.errors import EngineError, InputError, UnsupportedError
from edgectl.engine.options import EngineOptions
from edgectl.engine.session import load_session, mismatches
from edgectl.engine.signature import ModelSignature, TensorSpec
from tests.support.models import write_linear, write_onnx

if TYPE_CHECKING:
    from pathlib import Path

X = np.array([[1, 0, 2]], np.float32)


def test_runs_a_model(tmp_path: Path) -> None:
    session = load_session(write_linear(tmp_path / "m.onnx", offset=0.5))
    np.testing.assert_allclose(session.run({"x": X})["y"], [[11.5, 14.5]])
    assert session.inputs == (TensorSpec("x", "FP32", (-1, 3)),)
    assert session.outputs == (TensorSpec("y", "FP32", (-1, 2)),)
    assert session.providers == ("CPUExecutionProvider",)
    assert re.fullmatch(r"onnxruntime \d+\.\d+\.\d+", session.engine)


def test_runs_from_many_threads_at_once(tmp_path: Path) -> None:
    session = load_session(write_linear(tmp_path / "m.onnx"))

    def work(number: int) -> set[tuple[float, ...]]:
        row = np.full((1, 3), number, np.float32)
        return {tuple(session.run({"x": row})["y"][0].tolist()) for _ in range(50)}

    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(work, range(4)))
    assert answers == [{(9.0 * number, 12.0 * number)} for number in range(4)]


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((1, 4), np.float32), r"has shape \[1, 4\], but the model takes \[-1, 3\]"),
        (np.zeros(3, np.float32), r"has shape \[3\]"),
        (np.zeros((1, 3), np.float64), "is FP64, but the model takes FP32"),
        (np.array([[1, np.nan, 2]], np.float32), "NaN"),
        (np.array([[1, np.inf, 2]], np.float32), "infinite"),
        (np.array([["a", "b", "c"]]), "is BYTES"),
    ],
)
def test_refuses_input_that_does_not_fit(tmp_path: Path, array: np.ndarray, message: str) -> None:
    session = load_session(write_linear(tmp_path / "m.onnx"))
    with pytest.raises(InputError, match=message):
        session.run({"x": array})


def test_refuses_missing_and_unknown_inputs(tmp_path: Path) -> None:
    session = load_session(write_linear(tmp_path / "m.onnx"))
    with pytest.raises(InputError, match="missing input 'x'"):
        session.run({})
    with pytest.raises(InputError, match="unknown input 'z'"):
        session.run({"x": X, "z": X})


def test_takes_arrays_of_any_byte_order_and_stride(tmp_path: Path) -> None:
    session = load_session(write_linear(tmp_path / "m.onnx"))
    strided = np.asfortranarray(np.repeat(X, 2, axis=1)[:, ::2])
    for array in (X.astype(">f4"), strided):
        np.testing.assert_allclose(session.run({"x": array})["y"], [[11, 14]])


def test_names_the_node_that_fails_on_the_data(tmp_path: Path) -> None:
    node = helper.make_node("Reshape", ["x", "to"], ["y"], name="to_pairs")
    path = write_onnx(
        tmp_path / "m.onnx",
        [node],
        inputs={"x": ["N", "M"]},
        outputs={"y": None},
        constants={"to": np.array([3, 3])},
    )
    with pytest.raises(EngineError, match="to_pairs") as caught:
        load_session(path).run({"x": X})
    assert "onnxruntime_src" not in str(caught.value)


def test_a_closed_session_says_so(tmp_path: Path) -> None:
    session = load_session(write_linear(tmp_path / "m.onnx"))
    session.close()
    with pytest.raises(EngineError, match="closed"):
        session.run({"x": X})


def test_names_an_operator_that_does_not_exist(tmp_path: Path) -> None:
    node = helper.make_node("Frobnicate", ["x"], ["y"], name="node_7")
    path = write_onnx(tmp_path / "m.onnx", [node], inputs={"x": ["N"]}, outputs={"y": ["N"]})
    with pytest.raises(UnsupportedError, match="cannot run operator Frobnicate") as caught:
        load_session(path)
    assert (caught.value.operator, caught.value.node) == ("Frobnicate", "node_7")


def test_names_an_operator_without_a_kernel(tmp_path: Path) -> None:
    node = helper.make_node("Det", ["x"], ["y"], name="node_3")
    path = write_onnx(
        tmp_path / "m.onnx",
        [node],
        inputs={"x": [2, 2]},
        outputs={"y": None},
        element=TensorProto.DOUBLE,
    )
    with pytest.raises(UnsupportedError, match="Det") as caught:
        load_session(path)
    assert (caught.value.operator, caught.value.node) == ("Det", "node_3")


def test_names_an_operator_of_an_unknown_domain(tmp_path: Path) -> None:
    node = helper.make_node("Foo", ["x"], ["y"], name="custom", domain="acme")
    path = write_onnx(tmp_path / "m.onnx", [node], inputs={"x": ["N"]}, outputs={"y": ["N"]})
    with pytest.raises(UnsupportedError) as caught:
        load_session(path)
    assert caught.value.operator == "acme:Foo"


@pytest.mark.parametrize("data", [b"", b"hello world", b"\x08\x08\x12"])
def test_refuses_a_file_that_is_no_model(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(data)
    with pytest.raises(EngineError, match=r"m\.onnx"):
        load_session(path)


def test_refuses_every_truncation(tmp_path: Path) -> None:
    whole = write_linear(tmp_path / "m.onnx").read_bytes()
    cut = tmp_path / "cut.onnx"
    for length in range(0, len(whole) - 1, 7):
        cut.write_bytes(whole[:length])
        with pytest.raises(EngineError, match="cut"):
            load_session(cut)


def test_refuses_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="does not exist"):
        load_session(tmp_path / "absent.onnx")


def test_falls_back_to_the_cpu_only_where_asked(tmp_path: Path) -> None:
    path = write_linear(tmp_path / "m.onnx")
    session = load_session(
        path, options=EngineOptions(("TensorrtExecutionProvider", "CPUExecutionProvider"))
    )
    assert session.providers == ("CPUExecutionProvider",)
    with pytest.raises(UnsupportedError, match="TensorrtExecutionProvider"):
        load_session(path, options=EngineOptions(("TensorrtExecutionProvider",)))
    with pytest.raises(UnsupportedError, match="none"):
        load_session(path, options=EngineOptions(()))


def test_refuses_an_unknown_engine(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match="'tensorflow' is not one of: coreml, "):
        load_session(tmp_path / "m.onnx", engine="tensorflow")


def _signature(inputs: tuple[TensorSpec, ...], outputs: tuple[TensorSpec, ...]) -> ModelSignature:
    return ModelSignature("m", "1.0.0", "regression", inputs, outputs)


def test_a_signature_may_leave_open_or_fix_what_the_file_does(tmp_path: Path) -> None:
    session = load_session(write_linear(tmp_path / "m.onnx"))
    for batch in (-1, 1, 16):
        inputs = (TensorSpec("x", "FP32", (batch, 3)),)
        assert mismatches(session, _signature(inputs, ())) == []


def test_reports_everything_that_a_signature_gets_wrong(tmp_path: Path) -> None:
    session = load_session(write_linear(tmp_path / "m.onnx"))
    signature = _signature(
        (TensorSpec("image", "FP32", (-1, 3)),),
        (TensorSpec("y", "FP64", (-1, 2)), TensorSpec("z", "FP32", (-1, 2))),
    )
    assert mismatches(session, signature) == [
        "the model has no input 'image'",
        "the model's input 'x' is not in its signature",
        "output 'y' is FP32 in the model, FP64 in its signature",
        "the model has no output 'z'",
    ]
    signature = _signature((TensorSpec("x", "FP32", (-1, 4)),), ())
    assert mismatches(session, signature) == [
        "input 'x' has shape [-1, 3] in the model, [-1, 4] in its signature"
    ]
