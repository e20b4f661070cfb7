from __future__ import annotations

import base64
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from edgectl.engine import transforms
from edgectl.engine.errors import InputError
from edgectl.engine.signature import TensorSpec
from tests.unit.engine.transforms.pictures import encode

VECTORS = Path(__file__).parents[3] / "vectors" / "engine" / "preprocess.json"
DIGIT_STEPS: tuple[dict[str, Any], ...] = (
    {"decode": {"mode": "L"}},
    {"resize": {"width": 8, "height": 8, "filter": "area"}},
    {"scale": {"factor": 16 / 255}},
    {"layout": {"order": "NCHW"}},
)
SMALL = {"resize": {"width": 4, "height": 4}}
DIGIT = TensorSpec("image", "FP32", (-1, 1, 8, 8), DIGIT_STEPS)


def _input(*steps: Any, shape: tuple[int, ...] = (-1, -1, -1, -1)) -> TensorSpec:
    return TensorSpec("image", "FP32", shape, steps)


@pytest.mark.parametrize("case", json.loads(VECTORS.read_text()), ids=lambda case: case["name"])
def test_vectors(case: dict[str, Any]) -> None:
    spec = TensorSpec("image", case["datatype"], tuple(case["shape"]), tuple(case["transforms"]))
    transforms.check(spec, "input")
    made = transforms.preprocess(spec, base64.b64decode(case["encoded"])).array
    assert list(made.shape) == case["made"]["shape"]
    np.testing.assert_allclose(made.ravel(), case["made"]["values"], atol=1e-6)


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "LA", "P", "I;16", "CMYK JPEG", "1:8"])
def test_a_digit_is_the_same_in_every_form_that_people_send(mode: str) -> None:
    digit = np.random.default_rng(7).integers(0, 17, (8, 8))
    grey = np.round(digit * (255 / 16)).astype(np.uint8)
    image = Image.fromarray(grey)
    if mode == "I;16":
        data = encode(grey.astype(np.uint16) * 257)
    elif mode == "CMYK JPEG":
        data = encode(image.resize((64, 64), 0).convert("CMYK"), "JPEG", quality=98)
    elif mode == "1:8":
        data = encode(image.resize((64, 64), Image.Resampling.NEAREST))
    else:
        data = encode(image.convert(mode))
    made = transforms.preprocess(DIGIT, data).array
    assert made.dtype == np.float32
    np.testing.assert_allclose(made[0, 0], digit, atol=0.5 if "JPEG" in mode else 0.04)


def test_enlarged_digits_come_back_exactly_by_area() -> None:
    digit = np.random.default_rng(7).integers(0, 256, (8, 8), np.uint8)
    made = transforms.preprocess(DIGIT, encode(digit.repeat(8, axis=0).repeat(8, axis=1))).array
    np.testing.assert_allclose(made[0, 0], digit * (16 / 255), rtol=1e-6)


def test_whole_number_inputs_are_rounded() -> None:
    spec = TensorSpec("image", "UINT8", (1, 2, 1, 1), ({"decode": "L"}, {"scale": 0.5}))
    made = transforms.preprocess(spec, encode(np.array([[101], [255]], np.uint8))).array
    assert made.dtype == np.uint8
    assert made.ravel().tolist() == [50, 128]


def test_a_picture_for_an_input_of_tensors_is_refused() -> None:
    spec = TensorSpec("x", "FP32", (-1, 3))
    assert not transforms.accepts_encoded(spec)
    with pytest.raises(InputError, match=r"input 'x' takes tensors"):
        transforms.preprocess(spec, encode(np.zeros((8, 8), np.uint8)))


def test_a_fixed_batch_still_takes_one_picture_at_a_time() -> None:
    spec = TensorSpec("image", "FP32", (4, 1, 8, 8), DIGIT_STEPS)
    transforms.check(spec, "input")
    assert transforms.preprocess(spec, encode(np.zeros((8, 8), np.uint8))).array.shape == (
        1,
        1,
        8,
        8,
    )


def test_errors_name_the_input() -> None:
    with pytest.raises(InputError, match="input 'image': the data is not a PNG"):
        transforms.preprocess(DIGIT, b"no picture")
    unfit = _input({"decode": "RGB"}, {"layout": "NCHW"}, shape=(-1, 3, 8, 8))
    with pytest.raises(InputError, match=r"input 'image' has shape \[1, 3, 4, 5\]"):
        transforms.preprocess(unfit, encode(np.zeros((4, 5, 3), np.uint8)))


def test_postprocess_gives_numbers_or_classes() -> None:
    logits = np.array([[0.0, 2.0, 1.0]], np.float32)
    plain = TensorSpec("y", "FP32", (-1, 3))
    assert transforms.postprocess(plain, logits) is logits
    spec = TensorSpec("y", "FP32", (-1, 3), ({"softmax": {}}, {"topk": {"k": 2}}), ("a", "b", "c"))
    transforms.check(spec, "output")
    best = transforms.postprocess(spec, logits)
    assert isinstance(best, transforms.Classes)
    assert best.indices.tolist() == [[1, 2]]
    assert best.label(0) == "b"
    numbers = transforms.scores(spec, logits)
    assert numbers.shape == (1, 3)
    assert float(numbers.sum()) == pytest.approx(1)


@pytest.mark.parametrize(
    ("declared", "full"),
    [
        ("softmax", {"softmax": {}}),
        ({"softmax": None}, {"softmax": {}}),
        ({"layout": "NCHW"}, {"layout": {"order": "NCHW"}}),
        ({"topk": 3}, {"topk": {"k": 3}}),
        ({"decode": {}}, {"decode": {}}),
        ({"decode": {"mode": "RGB", "maxPixels": 99}}, {"decode": {"maxPixels": 99}}),
        ({"reshape": [64]}, {"reshape": {"to": [64]}}),
    ],
)
def test_canonical_forms(declared: Any, full: dict[str, Any]) -> None:
    assert transforms.canonical(declared) == full
    assert transforms.canonical(full) == full


@pytest.mark.parametrize(
    ("declared", "message"),
    [
        ("resiz", "unknown transform 'resiz'; did you mean 'resize'?"),
        ({"a": 1, "b": 2}, "a name or a mapping with one key"),
        (["resize"], "a name or a mapping with one key"),
        ({"resize": {"width": 8}}, "transform 'resize' needs parameter 'height'"),
        ({"resize": {"width": 8, "hight": 8}}, "no parameter 'hight'; did you mean 'height'?"),
        ({"resize": {"width": 0, "height": 8}}, "'width' must be a whole number from 1 to 16384"),
        ({"resize": {"width": 8.0, "height": 8}}, "'width' must be a whole number"),
        ({"resize": {"width": True, "height": 8}}, "'width' must be a whole number"),
        ({"resize": {"width": 8, "height": 8, "fit": "fill"}}, "one of stretch, contain, cover"),
        ({"decode": {"mode": "CMYK"}}, "'mode' must be one of L, RGB, BGR, not 'CMYK'"),
        ({"decode": {"mode": ["L"]}}, "'mode' must be one of"),
        ({"decode": {"orient": 1}}, "'orient' must be true or false"),
        ({"decode": {"background": 300}}, "'background' must be one or three numbers"),
        ({"decode": {"maxPixels": 1 << 40}}, "'maxPixels' must be a whole number from 1"),
        ({"scale": {"factor": "1/255"}}, "'factor' must be a number, not '1/255'"),
        ({"scale": {"factor": float("nan")}}, "'factor' must be a number"),
        ({"normalize": {"mean": [1, 2], "std": [1, 2, 3]}}, "'mean' has 2 values and 'std' 3"),
        ({"normalize": {"mean": 0, "std": 0}}, "'std' must not be 0"),
        ({"normalize": {"mean": [], "std": 1}}, "'mean' must not be empty"),
        ({"layout": "CHW"}, "'order' must be one of NCHW, NHWC"),
        ({"dtype": "BYTES"}, "'type' must be one of UINT8"),
        ({"reshape": "64"}, "'to' must be a list of sizes"),
        ({"reshape": [-1]}, "'to' must be a whole number"),
        ({"softmax": 1}, "'softmax' takes no parameters"),
        ({"topk": {"k": 0}}, "'k' must be a whole number of at least 1"),
    ],
)
def test_wrong_declarations(declared: Any, message: str) -> None:
    with pytest.raises(ValueError, match=r"transform") as caught:
        transforms.canonical(declared)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (_input({"resize": {"width": 8, "height": 8}}), "must come first, and once"),
        (_input({"decode": "L"}, {"decode": "L"}), "must come first, and once"),
        (_input("softmax"), "unknown transform 'softmax' (it belongs to the other end"),
        (
            _input({"decode": "L"}, {"layout": "NCHW"}, {"resize": {"width": 8, "height": 8}}),
            "transform 'resize' must come before 'layout'",
        ),
        (_input({"decode": "L"}, {"normalize": {"mean": [0, 0, 0], "std": 1}}), "last axis has 1"),
        (
            _input({"decode": "L"}, SMALL, {"crop": {"width": 5, "height": 1}}),
            "transform 'crop' cannot crop 5 x 1 from 4 x 4",
        ),
        (
            _input({"decode": "L"}, SMALL, {"reshape": [15]}),
            "transform 'reshape' cannot reshape [4, 4, 1] to [15]",
        ),
        (
            _input({"decode": "L"}, {"resize": {"width": 4, "height": 4, "fill": [1, 2]}}),
            "parameter 'fill' has 2 values for 1 channels",
        ),
        (
            _input({"decode": "RGB"}, {"layout": "NCHW"}, shape=(-1, 1, 8, 8)),
            "its transforms make [1, 3, -1, -1], but its shape is [-1, 1, 8, 8]",
        ),
    ],
)  # fmt: skip
def test_inputs_that_cannot_work(spec: TensorSpec, message: str) -> None:
    with pytest.raises(ValueError, match=r"transform|decode") as caught:
        transforms.check(spec, "input")
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("steps", "shape", "labels", "message"),
    [
        (({"topk": 3}, "softmax"), (-1, 10), (), "'topk' must come last"),
        (({"topk": 3},), (-1, 2), (), "cannot choose the best 3 of 2 scores"),
        (("argmax",), (-1, 1), (), "cannot choose the best 1 of 1 scores"),
        (("decode",), (-1, 1), (), "it belongs to the other end"),
        ((), (-1, 3), ("a", "b"), "has 2 labels for 3 scores"),
    ],
)
def test_outputs_that_cannot_work(
    steps: Any, shape: tuple[int, ...], labels: tuple[str, ...], message: str
) -> None:
    with pytest.raises(ValueError, match=r"output 'y'|unknown") as caught:
        transforms.check(TensorSpec("y", "FP32", shape, steps, labels), "output")
    assert message in str(caught.value)


def test_declarations_are_checked_without_numpy_and_pillow() -> None:
    script = """
import sys
sys.modules.update(dict.fromkeys(["numpy", "PIL", "onnxruntime"]))
from edgectl.engine import transforms
from edgectl.engine.signature import TensorSpec
spec = TensorSpec("x", "FP32", (-1, 1, 8, 8), ({"decode": "L"}, {"layout": "NCHW"}))
transforms.check(spec, "input")
transforms.check(TensorSpec("y", "FP32", (-1, 9), ("softmax", {"topk": 3})), "output")
"""
    subprocess.run([sys.executable, "-c", script], check=True)
