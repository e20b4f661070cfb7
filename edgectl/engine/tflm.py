"""TensorFlow Lite Micro as an engine: the interpreter of microcontrollers, on this machine.

The `tflite-micro` package is the C++ interpreter with its reference kernels. Kernels for a device
(CMSIS-NN, ESP-NN) are held to the same 8-bit specification by their own tests, so what is measured
here of accuracy holds there; latency does not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import tflite_micro
from tflite_micro import runtime

from edgectl.engine.errors import EngineError, UnsupportedError
from edgectl.engine.ports import Affine, Port, PortSession
from edgectl.engine.signature import TensorSpec
from edgectl.engine.tflm_file import Model, Tensor, read_model
from edgectl.engine.tflm_operators import OPERATORS, STATEFUL

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from edgectl.engine.options import EngineOptions

MODEL_FILE = "model.tflite"

_DATATYPES = {
    "FLOAT32": "FP32", "INT8": "INT8", "INT16": "INT16", "INT32": "INT32", "INT64": "INT64",
    "UINT8": "UINT8", "UINT32": "UINT32", "BOOL": "BOOL",
}  # fmt: skip
_QUANTISED: dict[str, type[np.integer[Any]]] = {
    "INT8": np.int8,
    "UINT8": np.uint8,
    "INT16": np.int16,
}


class TflmSession(PortSession[runtime.Interpreter]):
    """A model in the micro interpreter; satisfies `edgectl.engine.session.Session`.

    The interpreter takes the one batch size that the file has. Where that is 1 for every input and
    output, the session takes any number of rows and runs them one by one, each from the state that
    the model starts in.
    """

    def __init__(self, interpreter: runtime.Interpreter, model: Model) -> None:
        self._stateful = keeps_state(model)
        graph = model.main
        tensors = [graph.tensors[index] for index in (*graph.inputs, *graph.outputs)]
        self._by_row = all(tensor.shape[:1] == (1,) for tensor in tensors)
        super().__init__(
            interpreter,
            f"tflm {tflite_micro.__version__}",
            self._ports(model.input_names, tensors[: len(graph.inputs)]),
            self._ports(model.output_names, tensors[len(graph.inputs) :]),
        )

    def _ports(self, names: tuple[str, ...], tensors: list[Tensor]) -> list[Port]:
        return [
            _port(index, name, tensor, self._by_row)
            for index, (name, tensor) in enumerate(zip(names, tensors, strict=True))
        ]

    def _run(
        self, interpreter: runtime.Interpreter, values: list[NDArray[Any]]
    ) -> list[NDArray[Any]]:
        if not self._by_row:
            return self._invoke(interpreter, values)
        rows = [
            self._invoke(interpreter, [value[row : row + 1] for value in values])
            for row in range(len(values[0]))
        ]
        if not rows:
            return [port.no_rows() for port in self._outputs]
        return [np.concatenate(parts) for parts in zip(*rows, strict=True)]

    def _invoke(
        self, interpreter: runtime.Interpreter, values: list[NDArray[Any]]
    ) -> list[NDArray[Any]]:
        try:
            if self._stateful:
                interpreter.reset()
            for port, value in zip(self._inputs, values, strict=True):
                interpreter.set_input(np.ascontiguousarray(value), port.index)
            interpreter.invoke()
            return [
                np.asarray(interpreter.get_output(port.index)).reshape(port.shape)
                for port in self._outputs
            ]
        except (RuntimeError, ValueError, IndexError) as error:
            raise EngineError(f"the model failed to run: {error}") from error


def load(path: Path, *, options: EngineOptions, threads: int) -> TflmSession:  # noqa: ARG001
    """Load a .tflite file; see `edgectl.engine.session.load_session`.

    The interpreter runs on one thread, whatever `threads` says, and has no options.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise EngineError(f"model file {path} cannot be read: {error.strerror}") from error
    model = read_model(data, path.name)
    check_operators(model, path.name)
    return TflmSession(open_interpreter(data, host_arena(model), path.name), model)


def open_interpreter(data: bytes, arena: int, name: str) -> runtime.Interpreter:
    """Load checked bytes into an interpreter with an arena of that many bytes.

    Raises EngineError where it does not fit, or a kernel refuses its tensors; why, the interpreter
    writes to the standard error of the process.
    """
    try:
        return runtime.Interpreter.from_bytes(data, arena_size=arena)
    except (RuntimeError, ValueError, MemoryError, TypeError) as error:  # beyond 64 bits: TypeError
        raise EngineError(
            f"{name} does not load in TensorFlow Lite Micro {tflite_micro.__version__}: {error} "
            "(its reason is on standard error)"
        ) from error


def check_operators(model: Model, name: str) -> None:
    """Raise UnsupportedError for the first operator that the interpreter does not have."""
    for operator in model.operators:
        newest = 0 if operator.custom else OPERATORS.get(operator.name, ("", 0))[1]
        if operator.version > newest:
            what = f"version {operator.version} of {operator.place}" if newest else operator.place
            raise UnsupportedError(
                f"{name}: TensorFlow Lite Micro {tflite_micro.__version__} has no {what}"
                + (f", its newest is {newest}" if newest else ""),
                operator=operator.name,
                node=operator.place,
            )


def keeps_state(model: Model) -> bool:
    """Whether an inference leaves something behind for the next one."""
    return any(operator.name in STATEFUL for operator in model.operators) or any(
        tensor.variable for graph in model.graphs for tensor in graph.tensors
    )


def host_arena(model: Model) -> int:
    """Bytes that are enough on this machine, where they cost nothing until they are touched.

    Every activation at once and eight times over (kernels ask for scratch of up to four bytes for
    each of an int8 output), and a page for the structures of each tensor and operator.
    """
    tensors = [tensor for graph in model.graphs for tensor in graph.tensors]
    activations = sum(tensor.nbytes for tensor in tensors if not tensor.constant)
    return (1 << 20) + 8 * activations + 4096 * (len(tensors) + len(model.operators))


def _port(index: int, name: str, tensor: Tensor, by_row: bool) -> Port:
    shape = (-1, *tensor.shape[1:]) if by_row else tensor.shape
    quantised = tensor.type in _QUANTISED and len(tensor.scales) == 1 and tensor.scales[0] > 0
    datatype = "FP32" if quantised else _DATATYPES.get(tensor.type)
    if datatype is None:
        raise UnsupportedError(
            f"tensor {name!r} is {tensor.type}, which the engine tflm neither takes nor gives",
            node=name,
        )
    affine = None
    if quantised:
        integer = np.dtype(_QUANTISED[tensor.type])
        affine = Affine(integer, np.float32(tensor.scales[0]), tensor.zero_points[0])
    return Port(index, TensorSpec(name, datatype, shape), tensor.shape, affine)
