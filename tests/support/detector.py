"""A detector that is easy to see through: it finds the bright cells of a 4 x 4 grid."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
from onnx import helper

from edgectl.engine.session import load_session
from edgectl.engine.signature import ModelSignature, TensorSpec
from tests.support.models import write_onnx

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

SIDE = 32
LABELS = ("lamp", "hole")
IMAGE = TensorSpec(
    "image",
    "FP32",
    (-1, 1, SIDE, SIDE),
    (
        {"decode": {"mode": "L"}},
        {"resize": {"width": SIDE, "height": SIDE, "fit": "contain", "fill": 64}},
        {"scale": {"factor": 1 / 255}},
        {"layout": {"order": "NCHW"}},
    ),
)
BOXES = TensorSpec(
    "boxes",
    "FP32",
    (-1, 16, 4),
    ({"nms": {"scores": "confidence", "form": "cxcywh", "units": "normalized", "threshold": 0.5}},),
    LABELS,
)
CONFIDENCE = TensorSpec("confidence", "FP32", (-1, 16, 2), ({"sigmoid": {}},))
BRIGHTNESS = TensorSpec("brightness", "FP32", (-1, 1, 4, 4))


def write_detector(path: Path) -> Path:
    """Write a model directory; `boxes` [N, 16, 4], normalised centres and sizes, are the cells,
    and `confidence` [N, 16, 2] the logits of their being bright or black."""
    path.mkdir(parents=True)
    centres = (np.stack(np.meshgrid(range(4), range(4)), axis=2).reshape(16, 2) + 0.5) / 4
    cells = np.concatenate([centres, np.full((16, 2), 0.25)], axis=1).astype(np.float32)
    write_onnx(
        path / "model.onnx",
        [
            helper.make_node("AveragePool", ["image"], ["brightness"], kernel_shape=[8, 8],
                             strides=[8, 8]),
            helper.make_node("Reshape", ["brightness", "column"], ["cells"]),
            helper.make_node("Mul", ["cells", "gain"], ["scaled"]),
            helper.make_node("Add", ["scaled", "bias"], ["confidence"]),
            helper.make_node("Mul", ["cells", "zero"], ["nothing"]),
            helper.make_node("Add", ["nothing", "where"], ["boxes"]),
        ],
        inputs={"image": ["N", 1, SIDE, SIDE]},
        outputs={"boxes": ["N", 16, 4], "confidence": ["N", 16, 2], "brightness": ["N", 1, 4, 4]},
        constants={
            "column": np.array([-1, 16, 1], np.int64),
            "gain": np.array([[[40, -40]]], np.float32),
            "bias": np.array([[[-30, 4]]], np.float32),
            "zero": np.zeros(1, np.float32),
            "where": cells[None],
        },
    )  # fmt: skip
    signature = ModelSignature(
        "lamps", "1.0.0", "detection", (IMAGE,), (BOXES, CONFIDENCE, BRIGHTNESS),
        {"name": "onnxruntime"}, {"absolute": 1e-4, "relative": 1e-4},
    )  # fmt: skip
    (path / "signature.json").write_text(json.dumps(signature.to_json()))
    image = np.random.default_rng(0).random((2, 1, SIDE, SIDE), np.float32)
    session = load_session(path / "model.onnx")
    arrays: dict[str, Any] = {"image": image, **session.run({"image": image})}
    np.savez(path / "golden.npz", **arrays)
    session.close()
    return path


def scene(width: int, height: int, *boxes: tuple[int, int, int, int]) -> NDArray[Any]:
    """A grey picture with white boxes (x1, y1, x2, y2)."""
    pixels = np.full((height, width), 64, np.uint8)
    for left, top, right, bottom in boxes:
        pixels[top:bottom, left:right] = 255
    return pixels
