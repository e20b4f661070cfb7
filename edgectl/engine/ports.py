"""Inputs and outputs of a TFLite model, whose integers may stand for real values.

Affine quantisation, `real = scale * (integer - zero_point)`:
https://ai.google.dev/edge/litert/conversion/tensorflow/quantization/quantization_spec
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import numpy as np

from edgectl.engine.errors import EngineError
from edgectl.engine.tensors import check_inputs, numpy_dtype

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from edgectl.engine.signature import TensorSpec

Interpreter = TypeVar("Interpreter")


@dataclass(frozen=True, slots=True)
class Affine:
    """How the integers of a tensor stand for real values."""

    integer: np.dtype[Any]
    scale: np.float32
    zero_point: int


@dataclass(frozen=True, slots=True)
class Port:
    """An input or output, as the file has it and as the session presents it."""

    index: int
    """The number that the interpreter knows it by."""
    spec: TensorSpec
    shape: tuple[int, ...]
    affine: Affine | None
    """None where nothing is converted; otherwise the spec says FP32."""

    def quantise(self, values: NDArray[Any]) -> NDArray[Any]:
        """Real values to the tensor's integers, as TFLite's Quantize: half away from zero."""
        if self.affine is None:
            return values
        # A half is added in double precision: in single, 0.49999997 and a half are 1.
        scaled = (values / self.affine.scale).astype(np.float64)
        rounded = np.trunc(scaled + np.copysign(0.5, scaled)) + self.affine.zero_point
        limits = np.iinfo(self.affine.integer)
        clipped: NDArray[Any] = np.clip(rounded, limits.min, limits.max)
        return clipped.astype(self.affine.integer)

    def dequantise(self, values: NDArray[Any]) -> NDArray[Any]:
        """The tensor's integers to the real values that they stand for."""
        if self.affine is None:
            return values
        real: NDArray[Any] = values.astype(np.float32) - np.float32(self.affine.zero_point)
        return real * self.affine.scale

    def no_rows(self) -> NDArray[Any]:
        """What the tensor is for a batch of nothing."""
        dtype = numpy_dtype(self.spec.datatype) if self.affine is None else self.affine.integer
        return np.empty((0, *self.shape[1:]), dtype)


class PortSession(ABC, Generic[Interpreter]):
    """A model in an interpreter that serves one thread at a time."""

    providers = ("cpu",)

    def __init__(
        self,
        interpreter: Interpreter,
        engine: str,
        inputs: Sequence[Port],
        outputs: Sequence[Port],
    ) -> None:
        self._interpreter: Interpreter | None = interpreter
        self._lock = threading.Lock()
        self._inputs = tuple(inputs)
        self._outputs = tuple(outputs)
        self.engine = engine
        self.inputs = tuple(port.spec for port in inputs)
        self.outputs = tuple(port.spec for port in outputs)

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Infer; see `edgectl.engine.session.Session.run`."""
        checked = check_inputs(self.inputs, inputs)
        values = [port.quantise(checked[port.spec.name]) for port in self._inputs]
        with self._lock:
            if self._interpreter is None:
                raise EngineError("the model is closed")
            results = self._run(self._interpreter, values)
        return {
            port.spec.name: port.dequantise(result)
            for port, result in zip(self._outputs, results, strict=True)
        }

    @abstractmethod
    def _run(self, interpreter: Interpreter, values: list[NDArray[Any]]) -> list[NDArray[Any]]:
        """Infer on values as the file has them, inputs and outputs in the order of the ports."""

    def close(self) -> None:
        """Free the model; waits for a `run` in progress."""
        with self._lock:
            self._interpreter = None
