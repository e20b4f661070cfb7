"""What a source model is checked for before anything is made of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
import onnx.inliner
from onnx import numpy_helper

from edgectl.build.kit.onnxfile import graphs_of, tensors_of
from edgectl.build.kit.wording import first_line
from edgectl.build.protocol import RefusalError

if TYPE_CHECKING:
    from pathlib import Path

MAX_MODEL_BYTES = (2 << 30) - 1
"""Protobuf's own limit for one message."""


def load_model(path: Path) -> onnx.ModelProto:
    """Read and check a model; refuses what is not one, or is not whole in one file."""
    size = path.stat().st_size
    if size > MAX_MODEL_BYTES:
        raise RefusalError(
            "too-large",
            f"{size} bytes is more than one ONNX file can hold",
            hint="split the model, or reduce its precision before the import",
        )
    try:
        model = onnx.load_model(path, load_external_data=False)
    except Exception as error:
        raise _does_not_load(error) from error
    for tensor in tensors_of(model.graph):
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            raise RefusalError(
                "external-data",
                "weights are outside the file, where no digest covers them",
                node=tensor.name,
                hint="save one file: onnx.save_model(onnx.load(path), path, "
                "save_as_external_data=False)",
            )
    if model.functions:
        model = onnx.inliner.inline_local_functions(model)
    check_operators(model)
    try:
        onnx.checker.check_model(model)
    except onnx.checker.ValidationError as error:
        raise _does_not_load(error) from error
    check_weights(model)
    return model


def _does_not_load(error: Exception) -> RefusalError:
    return RefusalError(
        "does-not-load",
        f"not a valid ONNX model: {first_line(error)}",
        hint="check it with onnx.checker.check_model, and export it again",
    )


def check_operators(model: onnx.ModelProto) -> None:
    """Refuse operators that the ONNX standard does not define at the model's opset."""
    opsets = {entry.domain or "": entry.version for entry in model.opset_import}
    for graph in graphs_of(model.graph):
        for index, node in enumerate(graph.node):
            domain = "" if node.domain == "ai.onnx" else node.domain
            where = node.name or f"{node.op_type} number {index}"
            if domain not in opsets:
                raise RefusalError(
                    "unknown-domain",
                    f"operator {domain}.{node.op_type} is of a domain the model does not import",
                    node=where,
                    hint="export the model again with the standard ONNX operators",
                )
            try:
                schema = onnx.defs.get_schema(node.op_type, opsets[domain], domain)
            except onnx.defs.SchemaError:
                schema = None
            if schema is None or schema.deprecated:
                raise RefusalError(
                    "unsupported-operator",
                    f"operator {domain or 'ai.onnx'}.{node.op_type} does not exist in opset "
                    f"{opsets[domain]}",
                    node=where,
                    hint="replace the operator, or export again with the standard ONNX operators",
                )


def check_weights(model: onnx.ModelProto) -> None:
    """Refuse NaN and infinite weights: a training that diverged."""
    for tensor in tensors_of(model.graph):
        values = numpy_helper.to_array(tensor)
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            # Masks use an infinite scalar on purpose; a whole tensor of weights does not.
            if values.size == 1 and not np.isnan(values).any():
                continue
            raise RefusalError(
                "weights-not-finite",
                "weights hold NaN or infinite values",
                node=tensor.name,
                hint="the training diverged: train again and export a healthy checkpoint",
            )
