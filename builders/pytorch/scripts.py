"""TorchScript to ONNX."""

from __future__ import annotations

import io
import re
from typing import TYPE_CHECKING

import numpy as np
import onnx
import torch

from edgectl.build.kit.data import fixed_batch
from edgectl.build.kit.torchfile.archives import SAVE_AGAIN
from edgectl.build.kit.torchfile.scripts import nodes
from edgectl.build.kit.torchonnx import unsupported
from edgectl.build.kit.wording import first_line
from edgectl.build.protocol import RefusalError, Task

if TYPE_CHECKING:
    from edgectl.build.kit.data import Samples

OPSET = 17
"""Read by ONNX Runtime from 1.12 and by TensorRT from 8.5."""


def to_onnx(script: torch.jit.ScriptModule, task: Task, samples: Samples) -> onnx.ModelProto:
    """Convert with control flow, by the exporter that reads TorchScript graphs themselves."""
    specs = (*task.params["inputs"], *task.params["outputs"])
    rows = fixed_batch(task.params["inputs"])
    rows = max(rows, 2) if task.params["inputs"][0]["shape"][:1] == [-1] else rows
    example = tuple(
        torch.from_numpy(np.resize(values, (rows, *values.shape[1:])))
        for values in samples.arrays.values()
    )
    buffer = io.BytesIO()
    try:
        torch.onnx.export(
            script,
            example,
            buffer,
            dynamo=False,
            opset_version=OPSET,
            input_names=[spec["name"] for spec in task.params["inputs"]],
            output_names=[spec["name"] for spec in task.params["outputs"]],
            dynamic_axes={
                spec["name"]: {
                    place: "batch" if place == 0 else f"{spec['name']}_{place}"
                    for place, size in enumerate(spec["shape"])
                    if size == -1
                }
                for spec in specs
            },
        )
    except Exception as error:
        raise _refused(script, error) from error
    return onnx.load_from_string(buffer.getvalue())


_EXPORTED = re.compile(r"operator '([\w:.]+)'")


def _refused(script: torch.jit.ScriptModule, error: Exception) -> RefusalError:
    named = _EXPORTED.search(str(error))
    if named is None:
        return RefusalError(
            "not-convertible",
            f"the TorchScript has no ONNX form: {first_line(error)}",
            hint=SAVE_AGAIN,
        )
    kind = named[1]
    node = next((n for n in nodes(script.inlined_graph) if n.kind() == kind), None)
    return unsupported(kind, kind if node is None else node.scopeName() or kind)
