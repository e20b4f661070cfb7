"""Core ML as an engine, on a Mac, through coremltools (https://apple.github.io/coremltools).

On an iPhone or iPad the app loads the same package; there is no Python there.
"""

from __future__ import annotations

import json
import platform
import threading
from typing import TYPE_CHECKING, Any

import coremltools
import numpy as np

from edgectl.engine.errors import EngineError, EngineUnavailableError, UnsupportedError
from edgectl.engine.signature import TensorSpec
from edgectl.engine.tensors import check_inputs, numpy_dtype

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from edgectl.engine.options import EngineOptions

INT64_KEY = "dev.edgectl.int64"
"""What the coreml builder writes into a model: the tensors that the manifest declares as INT64,
where Core ML has INT32 alone."""

_ARRAY = coremltools.proto.FeatureTypes_pb2.ArrayFeatureType
_DATATYPES = {
    _ARRAY.FLOAT16: "FP16", _ARRAY.FLOAT32: "FP32", _ARRAY.DOUBLE: "FP64", _ARRAY.INT32: "INT32",
    _ARRAY.INT8: "INT8",
}  # fmt: skip
_UNITS = {"": "ALL", "AUTO": "ALL", "CPU": "CPU_ONLY", "GPU": "CPU_AND_GPU", "NPU": "CPU_AND_NE"}


class CoreMlSession:
    """A model loaded by Core ML; satisfies `edgectl.engine.session.Session`."""

    def __init__(self, model: coremltools.models.MLModel, device: str) -> None:
        self._model: coremltools.models.MLModel | None = model
        self._lock = threading.Lock()
        self.engine = f"coreml {platform.mac_ver()[0]}"
        self.providers = (device.lower() or "all",)
        description = model.get_spec().description
        wide = frozenset(json.loads(description.metadata.userDefined.get(INT64_KEY, "[]")))
        self.inputs = tensor_specs(description.input, wide)
        self.outputs = tensor_specs(description.output, wide)

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Infer; see `Session.run`. One call computes at a time."""
        checked = check_inputs(self.inputs, inputs)
        # Core ML's whole numbers are INT32; check_inputs has seen to every other datatype.
        given = {
            name: array.astype(np.int32) if array.dtype == np.int64 else array
            for name, array in checked.items()
        }
        with self._lock:
            if self._model is None:
                raise EngineError("the model is closed")
            try:
                found = self._model.predict(given)
            except (RuntimeError, ValueError, TypeError) as error:
                raise EngineError(f"the model failed to run: {error}") from error
        return {
            spec.name: np.asarray(found[spec.name]).astype(numpy_dtype(spec.datatype), copy=False)
            for spec in self.outputs
        }

    def close(self) -> None:
        """Free the model; a `run` in progress ends first."""
        with self._lock:
            self._model = None


def load(path: Path, *, options: EngineOptions, threads: int) -> CoreMlSession:  # noqa: ARG001
    """Load a package or .mlmodel file; see `edgectl.engine.session.load_session`.

    `options.device` is CPU, GPU, NPU, or empty for whatever Core ML finds best. Core ML chooses
    its own threads. Raises EngineUnavailableError on any system but macOS.
    """
    if platform.system() != "Darwin":
        raise EngineUnavailableError(
            f"Core ML predicts on macOS, iOS and their kin, not on {platform.system()}"
        )
    if options.device not in _UNITS:
        known = ", ".join(name for name in _UNITS if name)
        raise UnsupportedError(f"Core ML has no device {options.device!r}; it has {known}")
    try:
        model = coremltools.models.MLModel(
            str(path), compute_units=coremltools.ComputeUnit[_UNITS[options.device]]
        )
    except Exception as error:  # coremltools raises whatever its parts raise
        raise EngineError(f"{path} does not load in Core ML: {error}") from error
    return CoreMlSession(model, options.device)


def tensor_specs(features: Sequence[Any], wide: frozenset[str]) -> tuple[TensorSpec, ...]:
    """Inputs or outputs of a Core ML description; a flexible dimension is -1.

    Raises UnsupportedError for a feature that is no multi-array, such as an image.
    """
    return tuple(_spec(feature, wide) for feature in features)


def _spec(feature: Any, wide: frozenset[str]) -> TensorSpec:
    form = feature.type.WhichOneof("Type")
    if form != "multiArrayType":
        raise UnsupportedError(
            f"tensor {feature.name!r} is a feature of {form}, which the Open Inference Protocol "
            "cannot say"
        )
    array = feature.type.multiArrayType
    datatype = "INT64" if feature.name in wide else _DATATYPES.get(array.dataType)
    if datatype is None:
        raise UnsupportedError(f"tensor {feature.name!r} has a datatype that is not known")
    return TensorSpec(feature.name, datatype, _shape(array))


def _shape(array: Any) -> tuple[int, ...]:
    flexible = array.WhichOneof("ShapeFlexibility")
    if flexible == "shapeRange":
        ranges = [(side.lowerBound, side.upperBound) for side in array.shapeRange.sizeRanges]
        return tuple(low if low == high else -1 for low, high in ranges)
    if flexible == "enumeratedShapes":
        options = [tuple(option.shape) for option in array.enumeratedShapes.shapes]
        return tuple(
            sides[0] if len(set(sides)) == 1 else -1 for sides in zip(*options, strict=True)
        )
    return tuple(array.shape)
