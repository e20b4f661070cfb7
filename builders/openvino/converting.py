"""ONNX to OpenVINO's model."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import openvino as ov

from edgectl.build.protocol import RefusalError
from edgectl.engine.openvino import cause

if TYPE_CHECKING:
    from pathlib import Path

_LACKING = re.compile(r"No conversion rule found for operations: (?P<operators>[^\n]+)")


def onnx_file(path: Path) -> Path:
    """The ONNX file itself: a model with external data is a directory."""
    if not path.is_dir():
        return path
    (found,) = sorted(path.glob("*.onnx"))
    return found


def convert(path: Path) -> ov.Model:
    """OpenVINO's form of an ONNX file; refuses operators that it lacks, each with a node."""
    try:
        return ov.convert_model(path)
    except Exception as error:
        raise _refusal(path, error) from error


def _refusal(path: Path, error: Exception) -> RefusalError:
    lacking = _LACKING.search(str(error))
    if lacking is None:
        return RefusalError(
            "not-convertible",
            f"OpenVINO {ov.__version__.split('-')[0]} does not convert the model: "
            f"{cause(error)[:300]}",
            hint="export the model again with another opset, or without the operator it names",
        )
    operators = [name.strip() for name in lacking["operators"].split(",")]
    node = _node_of(path, operators[0])
    return RefusalError(
        "unsupported-operator",
        f"OpenVINO {ov.__version__.split('-')[0]} has no operator {', '.join(operators)}",
        node=node,
        hint="replace it in the model, or use a target with the engine onnxruntime",
    )


def _node_of(path: Path, operator: str) -> str | None:
    """The first node of an operator that OpenVINO writes as `domain.Type` (`Type` if standard)."""
    import onnx

    from edgectl.build.kit.onnxfile import graphs_of

    for graph in graphs_of(onnx.load_model(path, load_external_data=False).graph):
        for index, node in enumerate(graph.node):
            if operator in {node.op_type, f"{node.domain}.{node.op_type}"}:
                return node.name or f"{node.op_type} number {index}"
    return None
