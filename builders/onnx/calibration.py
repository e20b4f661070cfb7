"""Calibration data, dealt out in batches."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import onnx

CALIBRATION_BATCH = 16


class Batches:
    """Calibration data in batches (onnxruntime.quantization.CalibrationDataReader)."""

    def __init__(self, data: dict[str, np.ndarray], size: int) -> None:
        count = len(next(iter(data.values())))
        self._batches = iter(
            [
                {name: values[start : start + size] for name, values in data.items()}
                for start in range(0, count, size)
            ]
        )

    def get_next(self) -> dict[str, np.ndarray] | None:
        """The next batch, None after the last."""
        return next(self._batches, None)


def batch_size(model: onnx.ModelProto, count: int) -> int:
    """How many samples one run takes: the model's own first dimension, if it is fixed.

    Otherwise one that divides the count: the histogram methods need batches of one size.
    """
    dims = model.graph.input[0].type.tensor_type.shape.dim
    if dims and dims[0].HasField("dim_value"):
        return int(dims[0].dim_value)
    return next(size for size in range(CALIBRATION_BATCH, 0, -1) if count % size == 0)
