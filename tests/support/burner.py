"""A real model that computes for as long as the request says."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgectl.digest import canonical_json
from edgectl.engine.signature import ModelSignature, TensorSpec

if TYPE_CHECKING:
    from pathlib import Path

_SIDE = 256


def make_burner(directory: Path) -> Path:
    """Write a model directory: `rounds` INT64 [1] in, that many products of matrices, `sum` out."""
    matrix = (TensorProto.FLOAT, (_SIDE, _SIDE))
    body = helper.make_graph(
        [
            helper.make_node("MatMul", ["x", "unit"], ["y"]),
            helper.make_node("Identity", ["going"], ["goes"]),
        ],
        "round",
        [
            helper.make_tensor_value_info("number", TensorProto.INT64, ()),
            helper.make_tensor_value_info("going", TensorProto.BOOL, ()),
            helper.make_tensor_value_info("x", *matrix),
        ],
        [
            helper.make_tensor_value_info("goes", TensorProto.BOOL, ()),
            helper.make_tensor_value_info("y", *matrix),
        ],
    )
    graph = helper.make_graph(
        [
            helper.make_node("Squeeze", ["rounds"], ["count"]),
            helper.make_node("Loop", ["count", "", "unit"], ["product"], body=body),
            helper.make_node("ReduceSum", ["product"], ["total"], keepdims=0),
            helper.make_node("Unsqueeze", ["total", "axis"], ["sum"]),
        ],
        "burner",
        [helper.make_tensor_value_info("rounds", TensorProto.INT64, (1,))],
        [helper.make_tensor_value_info("sum", TensorProto.FLOAT, (1,))],
        [
            numpy_helper.from_array(np.eye(_SIDE, dtype=np.float32), "unit"),
            numpy_helper.from_array(np.array([0], np.int64), "axis"),
        ],
    )
    directory.mkdir(parents=True)
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), directory / "model.onnx")
    signature = ModelSignature(
        "burner",
        "1.0.0",
        "other",
        (TensorSpec("rounds", "INT64", (1,)),),
        (TensorSpec("sum", "FP32", (1,)),),
        {"name": "onnxruntime"},
    )
    (directory / "signature.json").write_bytes(canonical_json(signature.to_json()))
    return directory
