from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from edgectl.engine.errors import EngineError
from edgectl.engine.modeldir import ModelDirectory
from edgectl.engine.warmup import warm_up
from tests.support.models import half_picture, write_halves, write_halves_directory
from tests.unit.engine.transforms.pictures import encode

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_halves_directory(tmp_path / "model")


@pytest.fixture
def samples(tmp_path: Path) -> Path:
    directory = tmp_path / "samples"
    directory.mkdir()
    lines = ["file,label"]
    for number in range(4):
        side = ("left", "right")[number % 2]
        (directory / f"{number}.png").write_bytes(encode(half_picture(side)))
        lines.append(f"{number}.png,{side}")
    (directory / "labels.csv").write_text("\n".join(lines) + "\n")
    return directory


def _run(*arguments: object) -> dict[str, Any]:
    command = [sys.executable, "-m", "edgectl.engine.warmup", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    report: dict[str, Any] = json.loads(done.stdout)
    return report


def test_a_healthy_model(model: Path, samples: Path) -> None:
    report = _run(model, "--threads", 1, "--runs", 5, "--samples", samples)
    assert report["ok"]
    assert report["problems"] == []
    assert report["latency"]["runs"] == 5
    assert report["peakMemoryBytes"] > 10 << 20
    assert report["loadSeconds"] > 0
    assert report["providers"] == ["CPUExecutionProvider"]
    assert (report["accuracy"], report["samples"]) == (1.0, 4)


def test_another_model_than_the_golden_data_says(model: Path, samples: Path) -> None:
    write_halves(model / "model.onnx", swapped=True)
    report = _run(model, "--samples", samples)
    assert not report["ok"]
    assert "output 'scores' is" in report["problems"][0]
    assert report["accuracy"] == 0.0
    assert "latency" in report


def test_a_model_that_agrees_with_its_golden_data_but_is_wrong(
    tmp_path: Path, samples: Path
) -> None:
    model = write_halves_directory(tmp_path / "worse", swapped=True)
    report = warm_up(model, runs=1, samples=samples)
    assert report["ok"]
    assert report["accuracy"] == 0.0


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("model.onnx", b"damaged", "not an ONNX model"),
        ("golden.npz", b"damaged", "not a usable .npz"),
        ("signature.json", b"{}", "malformed model signature"),
        ("signature.json", b"\xff\xfe", "signature.json"),
        ("model.onnx", None, "has no model.onnx"),
        ("golden.npz", None, "has no golden data"),
        ("signature.json", None, "cannot read the model's signature"),
    ],
)
def test_damaged_directories_are_reported(
    model: Path, name: str, content: bytes | None, problem: str
) -> None:
    if content is None:
        (model / name).unlink()
    else:
        (model / name).write_bytes(content)
    report = warm_up(model, runs=1)
    assert not report["ok"]
    assert problem in report["problems"][0]


def test_a_signature_of_another_model_is_noticed(model: Path) -> None:
    signature = json.loads((model / "signature.json").read_text())
    signature["inputs"][0]["name"] = "picture"
    (model / "signature.json").write_text(json.dumps(signature))
    [problem] = warm_up(model, runs=1)["problems"]
    assert "the model has no input 'picture'" in problem
    with pytest.raises(EngineError, match="not in its signature"):
        ModelDirectory.open(model).load()


def test_unusable_samples_are_no_problem_of_the_model(model: Path, samples: Path) -> None:
    (samples / "1.png").write_bytes(b"no picture")
    report = warm_up(model, runs=1, samples=samples)
    assert report["ok"]
    assert "accuracy" not in report
    assert report["unusableSamples"] == (
        "sample 1.png: input 'image': the data is not a PNG, JPEG, BMP or WebP image"
    )


def test_a_model_that_gives_nan_is_not_healthy(model: Path) -> None:
    arrays = dict(np.load(model / "golden.npz"))
    arrays["scores"][0, 0] = np.nan
    np.savez(model / "golden.npz", **arrays)
    report = warm_up(model, runs=1)
    assert not report["ok"]


def test_a_missing_tokenizer_is_a_problem_before_there_is_traffic(tmp_path: Path) -> None:
    path = write_halves_directory(tmp_path / "m")
    signature = json.loads((path / "signature.json").read_text())
    step = {"tokenize": {"vocabulary": "tokenizer.json", "length": 8}}
    signature["inputs"][0]["transforms"] = [step]
    (path / "signature.json").write_text(json.dumps(signature))
    report = warm_up(path, runs=1)
    assert not report["ok"]
    assert "input 'image': cannot read the tokenizer" in report["problems"][0]
