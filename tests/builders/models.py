"""Small ONNX models and estimators that builders are tried on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

if TYPE_CHECKING:
    from pathlib import Path

ROWS = {"name": "x", "datatype": "FP32", "shape": [-1, 4]}
SCORES = {"name": "y", "datatype": "FP32", "shape": [-1, 3]}
SIGNATURE = {"inputs": [ROWS], "outputs": [SCORES]}
"""Params of an import of `dense`."""


def dense(
    *nodes: onnx.NodeProto, opset: int = 17, weights: np.ndarray | None = None
) -> onnx.ModelProto:
    """`y = relu(x @ w + b)`, [n, 4] to [n, 3]; `nodes` stand before it and give `h` from `x`."""
    rng = np.random.default_rng(0)
    w = rng.normal(size=(4, 3)).astype(np.float32) if weights is None else weights
    body = [
        *(nodes or (helper.make_node("Identity", ["x"], ["h"], name="start"),)),
        helper.make_node("MatMul", ["h", "w"], ["m"], name="product"),
        helper.make_node("Add", ["m", "b"], ["a"], name="sum", doc_string="made at noon"),
        helper.make_node("Relu", ["a"], ["y"], name="relu"),
    ]
    graph = helper.make_graph(
        body,
        "export_of_last_tuesday",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 3])],
        [
            numpy_helper.from_array(w, "w"),
            numpy_helper.from_array(np.ones(3, np.float32), "b"),
        ],
    )
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", opset)], producer_name="trainer"
    )
    model.ir_version = 8
    entry = model.metadata_props.add()
    entry.key, entry.value = "exported", "2026-11-21T08:00:00 by somebody in /home/somebody"
    return model


def save(model: onnx.ModelProto, path: Path) -> Path:
    """Write without any check."""
    path.write_bytes(model.SerializeToString())
    return path


def save_rows(path: Path, count: int = 32, **arrays: Any) -> Path:
    """Rows for `dense`, with `arrays` in their place or beside them; None leaves one out."""
    rows = np.random.default_rng(1).normal(size=(count, 4)).astype(np.float32)
    values = {"x": rows} | arrays
    np.savez(path, **{name: value for name, value in values.items() if value is not None})
    return path
