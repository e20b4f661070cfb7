"""Tiny real ONNX models and model directories, written where a test wants them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgectl.engine.session import load_session
from edgectl.engine.signature import ModelSignature, TensorSpec

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

SIZE = 8
PICTURE_INPUT = TensorSpec(
    "image",
    "FP32",
    (-1, 1, SIZE, SIZE),
    (
        {"decode": {"mode": "L"}},
        {"resize": {"width": SIZE, "height": SIZE}},
        {"scale": {"factor": 1 / 255}},
        {"layout": {"order": "NCHW"}},
    ),
)
HALVES_OUTPUT = TensorSpec(
    "scores", "FP32", (-1, 2), ({"softmax": {}}, {"topk": {"k": 2}}), ("left", "right")
)


def write_onnx(
    path: Path,
    nodes: Sequence[onnx.NodeProto],
    *,
    inputs: Mapping[str, Sequence[int | str]],
    outputs: Mapping[str, Sequence[int | str] | None],
    constants: Mapping[str, NDArray[Any]] | None = None,
    element: int = TensorProto.FLOAT,
    opset: int = 17,
) -> Path:
    """Write a graph as it is, unchecked, so that invalid ones can be made too."""
    graph = helper.make_graph(
        list(nodes),
        "graph",
        [helper.make_tensor_value_info(name, element, shape) for name, shape in inputs.items()],
        [helper.make_tensor_value_info(name, element, shape) for name, shape in outputs.items()],
        [numpy_helper.from_array(value, name) for name, value in (constants or {}).items()],
    )
    imports = {"": opset, **{node.domain: 1 for node in nodes if node.domain}}
    model = helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid(domain, version) for domain, version in imports.items()],
        ir_version=8,
    )
    onnx.save(model, path)
    return path


def write_linear(path: Path, *, batch: int | str = "N", offset: float = 0.0) -> Path:
    """`y = x @ [[1, 2], [3, 4], [5, 6]] + offset`, from [batch, 3] to [batch, 2]."""
    weights = np.array([[1, 2], [3, 4], [5, 6]], np.float32)
    return write_onnx(
        path,
        [
            helper.make_node("MatMul", ["x", "w"], ["xw"], name="product"),
            helper.make_node("Add", ["xw", "b"], ["y"], name="sum"),
        ],
        inputs={"x": [batch, 3]},
        outputs={"y": [batch, 2]},
        constants={"w": weights, "b": np.full(2, offset, np.float32)},
    )


def write_halves(path: Path, *, swapped: bool = False) -> Path:
    """Which half of an 8x8 picture is brighter: `image` [N, 1, 8, 8] to `scores` [N, 2].

    `swapped` makes the model confidently wrong.
    """
    weights = np.zeros((SIZE, SIZE, 2), np.float32)
    weights[:, : SIZE // 2, int(swapped)] = 1
    weights[:, SIZE // 2 :, int(not swapped)] = 1
    return write_onnx(
        path,
        [
            helper.make_node("Flatten", ["image"], ["flat"], name="flatten"),
            helper.make_node("MatMul", ["flat", "w"], ["scores"], name="halves"),
        ],
        inputs={"image": ["N", 1, SIZE, SIZE]},
        outputs={"scores": ["N", 2]},
        constants={"w": weights.reshape(SIZE * SIZE, 2)},
    )


def write_halves_directory(
    path: Path, *, version: str = "1.0.0", swapped: bool = False, rows: int = 4
) -> Path:
    """A complete model directory around `write_halves`, golden data made by the model itself."""
    path.mkdir(parents=True)
    write_halves(path / "model.onnx", swapped=swapped)
    signature = ModelSignature(
        "halves",
        version,
        "classification",
        (PICTURE_INPUT,),
        (HALVES_OUTPUT,),
        {"name": "onnxruntime", "providers": ["CPUExecutionProvider"]},
        {"absolute": 1e-4, "relative": 1e-4, "top1": 1.0},
    )
    (path / "signature.json").write_text(json.dumps(signature.to_json()))
    image = np.random.default_rng(0).random((rows, 1, SIZE, SIZE), np.float32)
    session = load_session(path / "model.onnx")
    np.savez(path / "golden.npz", image=image, scores=session.run({"image": image})["scores"])
    session.close()
    return path


def half_picture(bright: str) -> NDArray[np.uint8]:
    """An 8x8 greyscale picture whose `left` or `right` half is bright."""
    pixels = np.full((SIZE, SIZE), 20, np.uint8)
    half = slice(None, SIZE // 2) if bright == "left" else slice(SIZE // 2, None)
    pixels[:, half] = 230
    return pixels
