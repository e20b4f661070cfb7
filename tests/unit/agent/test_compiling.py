"""COMPILE: what an engine compiles on the device, in a real process, on a stand-in for TensorRT."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from threading import Event, Timer
from typing import TYPE_CHECKING

import pytest

from edgectl.agent.compiling import Compiled, compile_model, is_compiled_here
from edgectl.agent.facts import Facts
from edgectl.agent.select import Variant
from edgectl.agent.stopping import Stopped
from edgectl.agent.warmup import UnhealthyModelError, warm_up
from edgectl.digest import canonical_json
from edgectl.engine.recipe import Batch, Recipe
from edgectl.errors import ConfigError
from edgectl.oci.descriptor import Descriptor
from tests.support.slots import DIGITS, make_digits
from tests.support.tensorrt_stubs import FAKE, build_libcuda

if TYPE_CHECKING:
    from pathlib import Path

FACTS = Facts("linux", "arm64", "jetson", engines={"tensorrt": "10.3.0"})


@pytest.fixture(scope="session")
def libcuda(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_libcuda(tmp_path_factory.mktemp("libcuda"))


@pytest.fixture
def jetson(libcuda: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Children of this process find the stand-ins; this process itself finds the package."""
    monkeypatch.setenv("PYTHONPATH", str(FAKE))
    monkeypatch.setenv("LD_LIBRARY_PATH", str(libcuda.parent))
    monkeypatch.syspath_prepend(str(FAKE))


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """The digits model as a TensorRT variant."""
    directory = make_digits(tmp_path / "digits")
    signature = replace(DIGITS, engine={"name": "tensorrt"})
    (directory / "signature.json").write_bytes(canonical_json(signature.to_json()))
    recipe = Recipe("fp32", batch=Batch(1, 1, 8))
    (directory / "recipe.json").write_bytes(recipe.to_bytes())
    return directory


def compiled(model: Path, timeout: float = 60, stop: Event | None = None) -> Compiled:
    return compile_model(
        "digits", model, model.parent / "cache", model.parent / "timing",
        threads=1, timeout=timeout, stop=stop or Event(),
    )  # fmt: skip


def variant(engine: str, *providers: str) -> Variant:
    requires = {"providers": list(providers)}
    return Variant(Descriptor.of(b"", "x"), "t", engine, "", "fp32", requires)


def test_only_engines_that_compile_are_compiled() -> None:
    gpu = replace(FACTS, providers=frozenset({"TensorrtExecutionProvider"}))
    assert is_compiled_here(variant("tensorrt"), FACTS)
    assert is_compiled_here(variant("openvino"), FACTS)
    assert is_compiled_here(variant("onnxruntime", "TensorrtExecutionProvider"), gpu)
    assert not is_compiled_here(variant("onnxruntime", "TensorrtExecutionProvider"), FACTS)
    assert not is_compiled_here(variant("onnxruntime", "CPUExecutionProvider"), gpu)
    assert not is_compiled_here(variant("litert"), FACTS)
    assert not is_compiled_here(variant("tensorrt"), replace(FACTS, simulated=True))


def test_compiled_once_and_loaded_from_the_cache(jetson: None, model: Path) -> None:
    first, again = compiled(model), compiled(model)
    assert (first.made, again.made) == (True, False)
    (plan,) = (model.parent / "cache").iterdir()
    assert first.size == again.size == plan.stat().st_size
    assert list((model.parent / "timing").iterdir())
    report = warm_up(
        "digits", model, threads=1, timeout=60, stop=Event(), runs=1,
        engine="tensorrt", cache=model.parent / "cache",
    )  # fmt: skip
    assert report.problems == ()


def test_what_the_engine_lacks_is_the_model_s_fault(
    jetson: None, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_TRT_REFUSES", "Conv")
    with pytest.raises(UnhealthyModelError, match=r"TensorRT 10\.3\.0 does not take operator Conv"):
        compiled(model)


def test_hardware_that_is_missing_is_not(
    jetson: None, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_CUDA_DEVICES", "0")
    with pytest.raises(ConfigError, match="no NVIDIA GPU") as caught:
        compiled(model)
    assert caught.value.hint
    monkeypatch.setenv("PYTHONPATH", "")
    with pytest.raises(ConfigError, match="TensorRT is not installed here"):
        compiled(model)


def test_a_time_limit_and_a_stop_end_it(
    jetson: None, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_TRT_STEP_SECONDS", "600")
    with pytest.raises(UnhealthyModelError, match=r"took more than .*") as caught:
        compiled(model, timeout=3)
    assert "limits.compile" in str(caught.value.hint)
    stop = Event()
    Timer(3, stop.set).start()
    with pytest.raises(Stopped):
        compiled(model, stop=stop)
    assert not list((model.parent / "cache").glob("*.plan"))


def test_a_compiler_that_is_killed_is_the_model_s_fault(
    jetson: None, model: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The kernel does that to what needs more memory than there is."""
    (tmp_path / "tensorrt.py").write_text("import os; os.kill(os.getpid(), 9)")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(UnhealthyModelError, match="was killed by SIGKILL"):
        compiled(model)


def test_it_ends_with_the_agent(jetson: None, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A killed agent leaves no compiler behind that keeps the GPU busy."""
    monkeypatch.setenv("FAKE_TRT_STEP_SECONDS", "600")
    command = [sys.executable, "-m", "edgectl.engine.compile", str(model),
               "--cache", str(model.parent / "cache")]  # fmt: skip
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        assert "progress" in json.loads(process.stdout.readline())
        process.stdin.close()
        assert process.wait(60) == 1


def test_sigterm_ends_the_build_at_its_next_step(
    jetson: None, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_TRT_STEPS", "10000")
    monkeypatch.setenv("FAKE_TRT_STEP_SECONDS", "0.01")
    command = [sys.executable, "-m", "edgectl.engine.compile", str(model),
               "--cache", str(model.parent / "cache")]  # fmt: skip
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.terminate()
        lines = process.stdout.read().splitlines()
    answer = json.loads(lines[-1])
    assert (answer["ok"], answer["code"]) == (False, "failed")
    assert "cancelled" in answer["message"]


def test_other_engines_compile_nothing(model: Path) -> None:
    (model / "signature.json").write_bytes(canonical_json(DIGITS.to_json()))
    found = compiled(model)
    assert (found.made, found.size) == (False, 0)


def test_the_cache_that_cannot_be_written_is_said(jetson: None, model: Path) -> None:
    (model.parent / "cache").write_text("a file, no directory")
    with pytest.raises(UnhealthyModelError, match="cannot write to the cache"):
        compiled(model)


def test_openvino_fills_its_cache(model: Path) -> None:
    """By loading the model once: the real engine, where it is installed."""
    ov = pytest.importorskip("openvino")
    signature = replace(DIGITS, engine={"name": "openvino", "device": "CPU"})
    (model / "signature.json").write_bytes(canonical_json(signature.to_json()))
    ov.save_model(ov.convert_model(model / "model.onnx"), model / "model.xml")
    assert compiled(model).made
    assert not compiled(model).made
