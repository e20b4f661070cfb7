"""LiteRT (TensorFlow Lite) as an engine, with XNNPACK on the CPU.

https://ai.google.dev/edge/litert. The interpreter verifies the FlatBuffer's structure, which
stops every cut file and nearly every flipped byte. It does not check what operators make of their
tensors: about 1 in 100 files with one forged field (a buffer of another size, an operator's code)
ends the process by a signal. So the sizes of constants are checked here, and a file is first loaded
and run in a process of its own.
"""

from __future__ import annotations

import ctypes
import math
import re
import signal
import subprocess
import sys
from importlib import metadata
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter

from edgectl.engine.errors import EngineError, UnsupportedError
from edgectl.engine.ports import Affine, Port, PortSession
from edgectl.engine.signature import TensorSpec
from edgectl.engine.tensors import datatype_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from edgectl.engine.options import EngineOptions

MODEL_FILE = "model.tflite"

_IDENTIFIER = b"TFL3"
_MAX_ELEMENTS = 4 << 30
"""Of all tensors together: the interpreter would ask the system for as much memory."""
_TRIAL_SECONDS = 120
_TRIAL = """
import resource, sys
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
import numpy
from ai_edge_litert.interpreter import Interpreter
model = Interpreter(model_path=sys.argv[1], num_threads=1)
shapes = [detail["shape"] for detail in model.get_tensor_details()]
if sum(numpy.prod(numpy.maximum(s, 1), dtype=float) for s in shapes) <= float(sys.argv[2]):
    model.allocate_tensors()
    for detail in model.get_input_details():
        model.set_tensor(detail["index"], numpy.zeros(detail["shape"], detail["dtype"]))
    model.invoke()
"""
_FAULTS = (ValueError, RuntimeError, TypeError, IndexError, MemoryError)
"""What the interpreter raises; it has no classes of its own."""


class LiteRtSession(PortSession[Interpreter]):
    """A model in the LiteRT interpreter; satisfies `edgectl.engine.session.Session`.

    Where the file leaves the batch open, the interpreter is resized to the rows that come. Where it
    is 1 for every input and output, the session takes any number of rows and runs them one by one.
    Quantised inputs and outputs are presented as FP32. Variables start anew with each inference.
    """

    def __init__(self, interpreter: Interpreter) -> None:
        takes, gives = interpreter.get_input_details(), interpreter.get_output_details()
        names = _signature_names(interpreter)
        self._resizable = all(_open_batch(detail) for detail in takes)
        self._by_row = all(detail["shape"][:1].tolist() == [1] for detail in (*takes, *gives))
        self.open_batch = self._resizable
        """Whether the file itself leaves the batch open, so that rows go together."""
        free = self._resizable or self._by_row
        super().__init__(
            interpreter,
            f"litert {metadata.version('ai-edge-litert')}",
            [_port(detail, names[0], free=free) for detail in takes],
            [_port(detail, names[1], free=free) for detail in gives],
        )
        self._rows = {port.index: port.shape[:1] for port in self._inputs}

    def _run(self, interpreter: Interpreter, values: list[NDArray[Any]]) -> list[NDArray[Any]]:
        rows = len(values[0]) if values and values[0].ndim else 1
        if rows == 0 and (self._resizable or self._by_row):
            return [port.no_rows() for port in self._outputs]
        if self._resizable and (rows == 1 or not self._by_row):
            return self._invoke(interpreter, values)
        if self._resizable:
            try:
                results = self._invoke(interpreter, values)
            except EngineError:
                results = []
            if results and all(len(result) == rows for result in results):
                return results
            # The file says that its batch is open, and an operator inside has it fixed.
            self._resizable = False
        if not self._by_row:
            return self._invoke(interpreter, values)
        parts = [
            self._invoke(interpreter, [value[row : row + 1] for value in values])
            for row in range(rows)
        ]
        return [np.concatenate(results) for results in zip(*parts, strict=True)]

    def _invoke(self, interpreter: Interpreter, values: list[NDArray[Any]]) -> list[NDArray[Any]]:
        try:
            self._resize(interpreter, values)
            interpreter.reset_all_variables()
            for port, value in zip(self._inputs, values, strict=True):
                interpreter.set_tensor(port.index, np.ascontiguousarray(value))
            interpreter.invoke()
            return [interpreter.get_tensor(port.index) for port in self._outputs]
        except _FAULTS as error:
            raise EngineError(f"the model failed to run: {_text(error)}") from error

    def _resize(self, interpreter: Interpreter, values: list[NDArray[Any]]) -> None:
        """Allocate anew where the batch is another one than the last."""
        changed = False
        for port, value in zip(self._inputs, values, strict=True):
            if value.shape[:1] != self._rows[port.index]:
                interpreter.resize_tensor_input(port.index, value.shape)
                self._rows[port.index] = value.shape[:1]
                changed = True
        if changed:
            interpreter.allocate_tensors()

    def close(self) -> None:
        """Free the model; waits for a `run` in progress."""
        super().close()
        _return_free_memory()


def load(path: Path, *, options: EngineOptions, threads: int) -> LiteRtSession:  # noqa: ARG001
    """Load a .tflite file; see `edgectl.engine.session.load_session`."""
    try:
        with path.open("rb") as file:
            head = file.read(8)
    except OSError as error:
        raise EngineError(f"model file {path} does not exist or is not readable") from error
    if head[4:] != _IDENTIFIER:
        raise EngineError(f"{path.name} is not a TFLite model: it does not start as one")
    try:
        _check_constants(path)
        _try_out(path)
        interpreter = Interpreter(model_path=str(path), num_threads=threads)
        _check_size(path, interpreter)
        interpreter.allocate_tensors()
        return LiteRtSession(interpreter)
    except _FAULTS as error:
        _raise_load_error(path, error)


_BITS = {
    schema.TensorType.FLOAT64: 64, schema.TensorType.INT64: 64, schema.TensorType.UINT64: 64,
    schema.TensorType.FLOAT32: 32, schema.TensorType.INT32: 32, schema.TensorType.UINT32: 32,
    schema.TensorType.FLOAT16: 16, schema.TensorType.INT16: 16, schema.TensorType.UINT16: 16,
    schema.TensorType.INT8: 8, schema.TensorType.UINT8: 8, schema.TensorType.BOOL: 8,
    schema.TensorType.INT4: 4,
}  # fmt: skip


def _check_constants(path: Path) -> None:
    """Refuse a constant whose shape says more or less than its buffer holds.

    The interpreter reads and writes by the shape.
    """
    try:
        model = schema.Model.GetRootAs(np.memmap(path, np.uint8, "r"))
        wrong = next(_wrong_constants(model), None)
    except Exception as error:
        raise EngineError(f"{path.name} is damaged or cut short: {error}") from error
    if wrong is not None:
        raise EngineError(f"{path.name} is damaged: {wrong}")


def _wrong_constants(model: Any) -> Iterator[str]:
    for graph in (model.Subgraphs(index) for index in range(model.SubgraphsLength())):
        for tensor in (graph.Tensors(index) for index in range(graph.TensorsLength())):
            if not 0 <= tensor.Buffer() < model.BuffersLength():
                yield f"a tensor's buffer is number {tensor.Buffer()} of {model.BuffersLength()}"
                continue
            have = model.Buffers(tensor.Buffer()).DataLength()
            shape = [int(tensor.Shape(index)) for index in range(tensor.ShapeLength())]
            bits = _BITS.get(tensor.Type())
            if not have or bits is None or tensor.Sparsity() is not None:
                continue
            if any(size < 0 for size in shape) or have != -(-math.prod(shape) * bits // 8):
                name = (tensor.Name() or b"").decode("utf-8", "replace")
                yield f"constant {name!r} of shape {shape} has a buffer of {have} bytes"


def _try_out(path: Path) -> None:
    """Load and run the file on zeros in another process; EngineError if that dies by a signal.

    What it refuses in words, the load that follows refuses too.
    """
    command = [sys.executable, "-c", _TRIAL, str(path), str(_MAX_ELEMENTS)]
    try:
        found = subprocess.run(
            command, capture_output=True, check=False, stdin=subprocess.DEVNULL,
            timeout=_TRIAL_SECONDS,
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise EngineError(
            f"{path.name} does not answer within {_TRIAL_SECONDS} s in a trial run"
        ) from error
    except OSError as error:
        raise EngineError(f"no process for a trial run of {path.name}: {error}") from error
    if found.returncode < 0:
        raise EngineError(
            f"{path.name} is damaged or hostile: it crashes LiteRT "
            f"({signal.Signals(-found.returncode).name} in a trial run)"
        )


def _check_size(path: Path, interpreter: Interpreter) -> None:
    """Refuse tensors of absurd size before memory is asked for."""
    size = sum(
        int(np.prod(np.maximum(detail["shape"], 1), dtype=np.float64))
        for detail in interpreter.get_tensor_details()
    )
    if size > _MAX_ELEMENTS:
        raise EngineError(
            f"{path.name} has tensors of {size} elements together, more than {_MAX_ELEMENTS}: "
            "it is damaged, or no model for a device"
        )


def _signature_names(interpreter: Interpreter) -> tuple[dict[int, str], dict[int, str]]:
    """Tensor index to name, of inputs and outputs, where the file has one signature."""
    signatures = interpreter._get_full_signature_list()  # noqa: SLF001 - the public list has no indices
    if len(signatures) != 1:
        return {}, {}
    (signature,) = signatures.values()
    return (
        {index: name for name, index in signature["inputs"].items()},
        {index: name for name, index in signature["outputs"].items()},
    )


def _open_batch(detail: Mapping[str, Any]) -> bool:
    return bool(detail["shape_signature"][:1].tolist() == [-1])


def _port(detail: Mapping[str, Any], names: Mapping[int, str], *, free: bool) -> Port:
    index, dtype = int(detail["index"]), np.dtype(detail["dtype"])
    scale, zero_point = detail["quantization"]
    quantised = dtype.kind in "iu" and scale > 0
    shape = tuple(int(size) for size in detail["shape"])
    declared = [int(size) for size in detail["shape_signature"]] or list(shape)
    if free and declared:
        declared[0] = -1
    name = names.get(index, str(detail["name"]))
    datatype = "FP32" if quantised else datatype_of(dtype)
    affine = Affine(dtype, np.float32(scale), int(zero_point)) if quantised else None
    return Port(index, TensorSpec(name, datatype, tuple(declared)), shape, affine)


# How LiteRT 2.x names what it lacks, tried in order.
_LACKS = (
    re.compile(r"[Uu]nresolved custom op: (?P<operator>[\w.:/-]+?)\.?(?:\s|$)"),
    re.compile(r"Didn't find op for builtin opcode '(?P<operator>\w+)' version '\d+'"),
    re.compile(r"Select TensorFlow op\(s\), included in the given model, is\(are\) not supported"),
)
_NODE = re.compile(r"Node number (?P<node>\d+) \((?P<operator>\w+)\) failed to (?:prepare|invoke)")


def _raise_load_error(path: Path, error: Exception) -> NoReturn:
    text = _text(error)
    node = _NODE.search(text)
    for pattern in _LACKS:
        if match := pattern.search(text):
            operator = match.groupdict().get("operator") or (node["operator"] if node else None)
            raise UnsupportedError(
                f"{path.name}: LiteRT has no operator {operator or 'of TensorFlow itself'}: {text}",
                operator=operator,
                node=f"{node['operator']} (operator {node['node']})" if node else None,
            ) from error
    if isinstance(error, MemoryError):
        raise EngineError(f"{path.name} needs more memory than there is: {text}") from error
    if node:
        raise EngineError(f"{path.name}: operator {node['node']} cannot run: {text}") from error
    raise EngineError(f"{path.name} is damaged or cut short: {text}") from error


def _text(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _return_free_memory() -> None:
    """Hand freed heap pages back to the system, where the C library can."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
