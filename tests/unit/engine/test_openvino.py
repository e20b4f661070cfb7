"""OpenVINO as an engine, on models made here."""

from __future__ import annotations

import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import numpy as np
import pytest

from edgectl.engine.errors import EngineError, EngineUnavailableError, InputError, UnsupportedError
from edgectl.engine.options import EngineOptions
from edgectl.engine.session import Session, load_session

if TYPE_CHECKING:
    from pathlib import Path

openvino = pytest.importorskip("edgectl.engine.openvino", reason="OpenVINO is not installed")
WEIGHTS = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
ROWS = np.random.default_rng(1).normal(size=(5, 4)).astype(np.float32)


def save(folder: Path, *, batch: int = -1, precision: str = "") -> Path:
    """`y = relu(x @ WEIGHTS)` as an IR."""
    import openvino as ov
    from openvino import opset13

    x = opset13.parameter([batch, 4], np.float32, name="x")
    x.output(0).set_names({"x"})
    y = opset13.relu(opset13.matmul(x, opset13.constant(WEIGHTS), False, False))
    y.output(0).set_names({"y"})
    model = ov.Model([y], [x], "model")
    if precision:
        model.set_rt_info(precision, openvino.PRECISION_INFO)
    ov.save_model(model, folder / "model.xml", compress_to_fp16=False)
    return folder


def load(folder: Path, **options: object) -> Session:
    return load_session(folder, engine="openvino", options=EngineOptions(**options))  # type: ignore[arg-type]


def test_it_answers_for_any_number_of_rows(tmp_path: Path) -> None:
    session = load(save(tmp_path))
    assert session.engine.startswith("openvino 20")
    assert session.providers == ("CPU",)
    assert [(s.name, s.datatype, s.shape) for s in session.inputs] == [("x", "FP32", (-1, 4))]
    assert [(s.name, s.datatype, s.shape) for s in session.outputs] == [("y", "FP32", (-1, 3))]
    want = np.maximum(ROWS @ WEIGHTS, 0)
    for count in (1, 5, 1, 2):
        (answer,) = session.run({"x": ROWS[:count]}).values()
        np.testing.assert_allclose(answer, want[:count], rtol=1e-5, atol=1e-6)


def test_an_answer_stays_as_it_is_when_the_next_comes(tmp_path: Path) -> None:
    session = load(save(tmp_path))
    first = session.run({"x": ROWS[:1]})["y"]
    kept = first.copy()
    session.run({"x": ROWS[1:2]})
    np.testing.assert_array_equal(first, kept)


def test_it_reads_rows_that_cannot_be_written(tmp_path: Path) -> None:
    """As they come from a request's bytes."""
    rows = np.frombuffer(ROWS.tobytes(), np.float32).reshape(ROWS.shape)
    answer = load(save(tmp_path)).run({"x": rows})["y"]
    np.testing.assert_allclose(answer, np.maximum(ROWS @ WEIGHTS, 0), rtol=1e-5, atol=1e-6)


def test_a_fixed_batch_is_kept(tmp_path: Path) -> None:
    session = load(save(tmp_path, batch=2))
    assert session.inputs[0].shape == (2, 4)
    with pytest.raises(InputError, match=r"has shape \[5, 4\]"):
        session.run({"x": ROWS})
    assert session.run({"x": ROWS[:2]})["y"].shape == (2, 3)


def test_threads_take_turns_and_each_gets_its_own_answer(tmp_path: Path) -> None:
    session = load(save(tmp_path))
    want = np.maximum(ROWS @ WEIGHTS, 0)
    wrong: list[int] = []

    def ask(row: int) -> None:
        for count in (1, 2):
            rows = np.repeat(ROWS[row : row + 1], count, axis=0)
            for _ in range(50):
                answer = session.run({"x": rows})["y"]
                if not np.allclose(answer, want[row], rtol=1e-5, atol=1e-6):
                    wrong.append(row)

    threads = [threading.Thread(target=ask, args=(row,)) for row in range(len(ROWS))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_a_closed_model_says_so(tmp_path: Path) -> None:
    session = load(save(tmp_path))
    session.close()
    with pytest.raises(EngineError, match="closed"):
        session.run({"x": ROWS})


@pytest.mark.parametrize("precision", ["", "fp32", "fp16", "int8"])
def test_a_cpu_computes_in_fp32_whatever_it_could_do(tmp_path: Path, precision: str) -> None:
    """bf16, which OpenVINO takes unasked where the CPU has it, would miss by a hundredth."""
    session = load(save(tmp_path, precision=precision))
    wide = (ROWS * 1000).astype(np.float32)
    answer = session.run({"x": wide})["y"]
    np.testing.assert_allclose(answer, np.maximum(wide @ WEIGHTS, 0), rtol=1e-5, atol=1e-2)


def test_bf16_is_left_to_the_cpu() -> None:
    exact = openvino._properties("CPU", "fp32", None, 1)
    assert exact["EXECUTION_MODE_HINT"] == "ACCURACY"
    assert "EXECUTION_MODE_HINT" not in openvino._properties("CPU", "bf16", None, 1)
    assert "EXECUTION_MODE_HINT" not in openvino._properties("GPU", "int8", None, 1)
    assert "INFERENCE_NUM_THREADS" not in openvino._properties("GPU", "int8", None, 1)
    assert openvino._properties("GPU", "fp32", None, 1)["EXECUTION_MODE_HINT"] == "ACCURACY"
    assert "EXECUTION_MODE_HINT" not in openvino._properties("NPU", "fp32", None, 1)


def test_auto_chooses_a_device_that_is_here(tmp_path: Path) -> None:
    session = load(save(tmp_path), device="AUTO")
    assert session.run({"x": ROWS})["y"].shape == (5, 3)


@pytest.mark.parametrize("device", ["NPU.7", "AUTO:NPU.7,CPU"])
def test_a_device_that_is_not_here_is_named(tmp_path: Path, device: str) -> None:
    with pytest.raises(EngineUnavailableError, match=r"no NPU.7 on this machine \(it finds: .*CPU"):
        load(save(tmp_path), device=device)


def test_what_it_compiles_is_kept_in_the_cache(tmp_path: Path) -> None:
    folder = save(tmp_path)
    cache = tmp_path / "made" / "later"
    first = load(folder, cache=cache).run({"x": ROWS[:1]})["y"]
    kept = sorted(cache.iterdir())
    assert kept
    second = load(folder, cache=cache).run({"x": ROWS[:1]})["y"]
    assert sorted(cache.iterdir()) == kept
    np.testing.assert_array_equal(first, second)


def test_a_cache_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(EngineError, match=r"the cache .*file/below cannot be made"):
        load(save(tmp_path), cache=tmp_path / "file" / "below")


def test_an_operator_that_it_lacks_is_named_with_its_node(tmp_path: Path) -> None:
    file = save(tmp_path) / "model.xml"
    text = file.read_text().replace('type="ReLU"', 'type="Sorcery"')
    file.write_text(text)
    with pytest.raises(UnsupportedError, match="cannot run operator Sorcery") as caught:
        load(tmp_path)
    assert caught.value.operator == "Sorcery"
    assert caught.value.node
    assert f'name="{caught.value.node}"' in text


def test_a_file_cut_short_is_named(tmp_path: Path) -> None:
    folder = save(tmp_path)
    (folder / "model.bin").write_bytes((folder / "model.bin").read_bytes()[:8])
    with pytest.raises(EngineError, match=r"model.xml does not load in OpenVINO .* cut short"):
        load(folder)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"model.xml does not exist"):
        load_session(tmp_path / "model.xml", engine="openvino")


def test_its_telemetry_is_never_imported() -> None:
    code = (
        "import sys, edgectl.engine.openvino\n"
        "assert sys.modules['openvino_telemetry'] is None\n"
        "assert not any(n.startswith('openvino_telemetry.') for n in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
