from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest

from edgectl.engine.errors import InputError
from edgectl.engine.modeldir import ModelDirectory
from edgectl.engine.samples import Accuracy, measure_accuracy, predict, read_inputs
from edgectl.engine.session import load_session
from edgectl.engine.signature import ModelSignature, TensorSpec
from tests.support.detector import scene, write_detector
from tests.support.models import (
    HALVES_OUTPUT,
    PICTURE_INPUT,
    half_picture,
    write_halves,
    write_linear,
)
from tests.unit.engine.transforms.pictures import encode

if TYPE_CHECKING:
    from pathlib import Path

PICTURES = ModelSignature("m", "1.0.0", "classification", (PICTURE_INPUT,), (HALVES_OUTPUT,))
TABLE = ModelSignature(
    "m",
    "1.0.0",
    "classification",
    (TensorSpec("x", "FP32", (-1, 3)),),
    (TensorSpec("y", "FP32", (-1, 2)),),
)


def _labels(directory: Path, text: str) -> None:
    (directory / "labels.csv").write_text(text, encoding="utf-8")


def test_pictures_of_any_kind_and_size(tmp_path: Path) -> None:
    left, right = half_picture("left"), half_picture("right")
    (tmp_path / "a.png").write_bytes(encode(left))
    (tmp_path / "b.jpg").write_bytes(encode(right.repeat(8, 0).repeat(8, 1), "JPEG"))
    (tmp_path / "c.bmp").write_bytes(encode(np.stack([left] * 3, axis=2), "BMP"))
    np.save(tmp_path / "d.npy", (right / np.float32(255)).astype(np.float32)[None])
    _labels(tmp_path, "file,label\na.png,left\nb.jpg,right\nc.bmp,right\nd.npy,right\n")
    session = load_session(write_halves(tmp_path / "m.onnx"))
    accuracy = measure_accuracy(session, PICTURES, tmp_path)
    assert accuracy == Accuracy(3, 4)
    assert accuracy.share == 0.75


def test_rows_of_a_table(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("[1, 2, 3]")
    (tmp_path / "b.json").write_text(json.dumps({"x": [-1, -2, -3]}))
    _labels(tmp_path, "file,label\na.json,1\nb.json,0\n")
    session = load_session(write_linear(tmp_path / "m.onnx"))
    assert measure_accuracy(session, TABLE, tmp_path) == Accuracy(2, 2)


def test_refuses_a_label_that_the_model_does_not_have(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(encode(half_picture("left")))
    _labels(tmp_path, "file,label\na.png,up\n")
    session = load_session(write_halves(tmp_path / "m.onnx"))
    with pytest.raises(InputError, match=r"a\.png: label 'up' is not one of the model's"):
        measure_accuracy(session, PICTURES, tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "sample a.json"),
        ('{"z": [1]}', "has no input 'z'"),
        ('["a", "b", "c"]', "sample a.json"),
        ("[" * 100_000, "sample a.json"),
    ],
)
def test_refuses_bad_rows(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(InputError) as caught:
        read_inputs(TABLE, tmp_path / "a.json")
    assert message in str(caught.value)


def test_encoded_rows_and_recordings(tmp_path: Path) -> None:
    """What a transform reads is read by it, whatever the file is called."""
    steps = ({"row": {"columns": ["a", "b", {"name": "c", "missing": 3}]}},)
    inputs = (TensorSpec("x", "FP32", (-1, 3), steps),)
    rows = ModelSignature("m", "1.0.0", "classification", inputs, TABLE.outputs)
    (tmp_path / "a.json").write_text('{"b": 2, "a": 1}')
    (tmp_path / "b.csv").write_text("-1,-2,-3")
    _labels(tmp_path, "file,label\na.json,1\nb.csv,0\n")
    session = load_session(write_linear(tmp_path / "m.onnx"))
    assert measure_accuracy(session, rows, tmp_path) == Accuracy(2, 2)
    assert read_inputs(rows, tmp_path / "a.json")["x"].tolist() == [[1, 2, 3]]


def test_detections_are_no_class(tmp_path: Path) -> None:
    directory = ModelDirectory.open(write_detector(tmp_path / "lamps"))
    (tmp_path / "a.png").write_bytes(encode(scene(40, 40)))
    with pytest.raises(InputError, match="'boxes' holds detections"):
        predict(directory.load(), directory.signature, tmp_path / "a.png")
