"""Calibration data: read, checked against the model, and dealt out in batches."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx

from arrays import read_npz
from edgectl.build.protocol import RefusalError
from wording import listed

if TYPE_CHECKING:
    from pathlib import Path

CALIBRATION_BATCH = 16


def read_calibration(path: Path | None, model: onnx.ModelProto) -> dict[str, np.ndarray]:
    """The calibration arrays, checked against the inputs of the model."""
    if path is None:
        raise RefusalError(
            "no-calibration",
            "int8 needs calibration data and the Model names none",
            hint="set spec.calibration.path to an npz with one array per input",
        )
    arrays = read_npz(path)
    return {
        value.name: _fitting(arrays, value.name, value.type.tensor_type, path.name)
        for value in model.graph.input
    }


def _fitting(
    arrays: dict[str, np.ndarray], name: str, expected: onnx.TypeProto.Tensor, file: str
) -> np.ndarray:
    hint = "make the data with the pre-processing that the model was trained with"
    if name not in arrays:
        raise RefusalError(
            "input-missing",
            f"{file} has no array {name!r}; it has {listed(list(arrays))}",
            node=name,
            hint=f"name the array of each input as the model does: {name!r}",
        )
    values = arrays[name]
    dtype = onnx.helper.tensor_dtype_to_np_dtype(expected.elem_type)
    dims = [d.dim_value if d.HasField("dim_value") else -1 for d in expected.shape.dim]
    same = len(values.shape) == len(dims) and all(
        want in (-1, got) for want, got in zip(dims[1:], values.shape[1:], strict=True)
    )
    if values.dtype != dtype or not same:
        raise RefusalError(
            "calibration-shape",
            f"{file}: array {name!r} is {values.dtype} {list(values.shape)}, "
            f"the model takes {dtype} {[-1, *dims[1:]]}",
            node=name,
            hint=hint,
        )
    whole = dims[0] if dims and dims[0] > 0 else 1
    if not len(values) or len(values) % whole:
        raise RefusalError(
            "calibration-count",
            f"{file}: {len(values)} samples are not one or more whole batches of {whole}",
            node=name,
            hint="about a hundred representative samples are enough",
        )
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise RefusalError(
            "calibration-not-finite",
            f"{file}: array {name!r} holds NaN or infinite values",
            node=name,
            hint=hint,
        )
    return values


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
