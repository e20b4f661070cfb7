"""ONNX Runtime as every action uses it: one thread, on the CPU."""

from __future__ import annotations

import onnxruntime

from edgectl.build.kit.wording import first_line
from edgectl.build.protocol import RefusalError


def session_options() -> onnxruntime.SessionOptions:
    """One thread, quiet."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return options


def open_session(data: bytes, options: onnxruntime.SessionOptions) -> onnxruntime.InferenceSession:
    """Load a model into ONNX Runtime; refuses what it does not support."""
    try:
        return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise RefusalError(
            "engine-refuses",
            f"ONNX Runtime {onnxruntime.__version__} does not load the model: {first_line(error)}",
            hint="replace the operator it names, or export with another opset",
        ) from error
