"""Each engine is asked in a process of its own, so that none takes another with it."""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING

import pytest

from edgectl.agent.probe import PACKAGES, Engines, installation, probe
from tests.support.tensorrt_stubs import FAKE, build_libcuda

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory of packages that this process and its children import first."""
    directory = tmp_path / "packages"
    directory.mkdir()
    monkeypatch.syspath_prepend(str(directory))
    monkeypatch.setenv("PYTHONPATH", str(directory))
    return directory


def install(packages: Path, package: str, code: str) -> None:
    (packages / f"{package}.py").write_text(code)
    importlib.invalidate_caches()


def test_every_engine_that_starts_is_reported(packages: Path) -> None:
    for engine, package in PACKAGES.items():
        if engine not in {"onnxruntime", "tensorrt"}:
            install(packages, package, f"__version__ = '1.2.3-{engine}'")
    engines = probe()
    expected = dict.fromkeys(("openvino", "litert", "tflm", "coreml"), "1.2.3")
    assert {k: v for k, v in engines.versions.items() if k != "onnxruntime"} == expected
    assert "onnxruntime" in engines.versions
    assert "CPUExecutionProvider" in engines.providers
    assert engines.compute_capability == ""


@pytest.mark.parametrize(
    "code",
    [
        "import os; os.kill(os.getpid(), 11)",
        "raise ImportError('libnvinfer.so.10: cannot open shared object file')",
        'print(\'{"not": "an answer"}\'); raise SystemExit(0)',
        "print('[' * 100_000); raise SystemExit(0)",
    ],
)
def test_an_engine_that_does_not_start_takes_no_other_with_it(packages: Path, code: str) -> None:
    install(packages, "openvino", code)
    engines = probe()
    assert "openvino" not in engines.versions
    assert "onnxruntime" in engines.versions
    assert engines.key == installation() != ""


@pytest.mark.parametrize("signal", ["SIGTERM", "SIGINT", "SIGKILL"])
def test_an_engine_whose_process_was_ended_is_asked_again(packages: Path, signal: str) -> None:
    """By systemd, in a terminal, or where memory was short: that is no answer to remember."""
    code = f"import os, signal; os.kill(os.getpid(), signal.{signal}); signal.pause()"
    install(packages, "openvino", code)
    engines = probe()
    assert "onnxruntime" in engines.versions
    assert engines.key == ""


def test_an_engine_whose_process_cannot_start_is_asked_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "gone"))
    assert installation() != ""
    assert probe() == Engines()


def test_another_installation_is_probed_anew(packages: Path) -> None:
    before = installation()
    install(packages, "coremltools", "__version__ = '9.0'")
    assert installation() != before


def test_tensorrt_counts_only_with_a_gpu(
    packages: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(FAKE))
    monkeypatch.setenv("PYTHONPATH", str(FAKE))
    monkeypatch.setenv("LD_LIBRARY_PATH", str(build_libcuda(tmp_path).parent))
    engines = probe()
    assert engines.versions["tensorrt"] == "10.3.0"
    assert engines.compute_capability == "8.7"
    monkeypatch.setenv("FAKE_CUDA_DEVICES", "0")
    assert "tensorrt" not in probe().versions


def test_what_an_earlier_agent_remembered_is_still_read() -> None:
    old = {"versions": {"onnxruntime": "1.31.1"}, "providers": ["CPUExecutionProvider"], "key": "k"}
    assert Engines.from_json(old).versions == {"onnxruntime": "1.31.1"}
