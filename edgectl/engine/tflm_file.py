"""A .tflite file, read and checked before the micro interpreter sees it.

The interpreter trusts its file: offsets, indices and sizes in it are followed unchecked, as befits
a model that is compiled into a firmware. Here a file comes from outside, so all of it is parsed
first, with bounds, and every index that the interpreter follows, and the size of every constant, is
held against what it points at. That is enough for files that are damaged or cut short. What a
kernel assumes of its own inputs (how many there are, a bias for each channel) is not checked here:
a file forged for the purpose can still crash or hang the process that runs it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tflite_micro import runtime

from edgectl.engine.errors import EngineError

if TYPE_CHECKING:
    from collections.abc import Sequence

_schema = runtime.schema_fb

SCHEMA_VERSION = 3
_IDENTIFIER = b"TFL3"
_BITS = {
    "FLOAT64": 64, "INT64": 64, "UINT64": 64, "COMPLEX64": 64, "FLOAT32": 32, "INT32": 32,
    "UINT32": 32, "FLOAT16": 16, "BFLOAT16": 16, "INT16": 16, "UINT16": 16, "INT8": 8, "UINT8": 8,
    "BOOL": 8, "INT4": 4,
}  # fmt: skip
_IN_BUFFER = 1
"""A buffer's `offset` above this says that its data lie behind the FlatBuffer."""


@dataclass(frozen=True, slots=True)
class Tensor:
    """One tensor of a graph."""

    name: str
    type: str
    """As the schema names it: `INT8`, `FLOAT32`, …"""
    shape: tuple[int, ...]
    signature: tuple[int, ...]
    """The shape with -1 where the file leaves a dimension open."""
    scales: tuple[float, ...]
    """One of the whole tensor, or one for each slice of `axis`; empty if it is not quantised."""
    zero_points: tuple[int, ...]
    axis: int
    constant: bool
    variable: bool
    sparse: bool

    @property
    def elements(self) -> int:
        """How many values it holds."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """What its values take; 0 for a type without a size, such as STRING."""
        return -(-self.elements * _BITS.get(self.type, 0) // 8)


@dataclass(frozen=True, slots=True)
class Operator:
    """One operator of a graph; `inputs` that are left out are -1."""

    index: int
    name: str
    """As the schema names it, or the custom operator's own name."""
    version: int
    custom: bool
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]

    @property
    def place(self) -> str:
        """How an error names it: the file itself has no names for operators."""
        return f"operator {self.index} ({self.name})"


@dataclass(frozen=True, slots=True)
class Graph:
    """A subgraph; the first of a file is the model, others are bodies of IF and WHILE."""

    tensors: tuple[Tensor, ...]
    operators: tuple[Operator, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Model:
    """A parsed file."""

    graphs: tuple[Graph, ...]
    input_names: tuple[str, ...]
    """By the file's signature where it has one, else the tensors' own; in the order of inputs."""
    output_names: tuple[str, ...]

    @property
    def main(self) -> Graph:
        """The graph that an inference runs."""
        return self.graphs[0]

    @property
    def operators(self) -> tuple[Operator, ...]:
        """Those of every graph."""
        return tuple(operator for graph in self.graphs for operator in graph.operators)


class _DamagedError(Exception):
    """What is wrong inside the file."""


def read_model(data: bytes, name: str) -> Model:
    """Parse and check a .tflite file.

    `name` is what errors call the file. Raises EngineError for what is no TFLite model, is cut
    short, or has an index or a size that leads outside.
    """
    if data[4:8] != _IDENTIFIER:
        raise EngineError(f"{name} is not a TFLite model: it does not start as one")
    try:
        parsed = _schema.ModelT.InitFromObj(_schema.Model.GetRootAsModel(data, 0))
    except Exception as error:  # whatever the reader stumbled over
        raise EngineError(f"{name} is damaged or cut short: {error}") from error
    try:
        return _model(parsed)
    except _DamagedError as error:
        raise EngineError(f"{name} is damaged: {error}") from error


def _model(parsed: Any) -> Model:
    if parsed.version != SCHEMA_VERSION:
        raise _DamagedError(f"its schema is version {parsed.version}, not {SCHEMA_VERSION}")
    buffers = [_buffer(index, buffer) for index, buffer in enumerate(parsed.buffers or ())]
    codes = [_code(code) for code in parsed.operatorCodes or ()]
    graphs = tuple(_graph(graph, buffers, codes) for graph in parsed.subgraphs or ())
    if not graphs:
        raise _DamagedError("it has no graph")
    main = graphs[0]
    inputs, outputs = _signature_names(parsed)
    return Model(
        graphs,
        tuple(inputs.get(i, main.tensors[i].name) for i in main.inputs),
        tuple(outputs.get(i, main.tensors[i].name) for i in main.outputs),
    )


def _buffer(index: int, buffer: Any) -> int:
    """How many bytes it holds."""
    if (buffer.offset or 0) > _IN_BUFFER:
        raise _DamagedError(f"buffer {index} lies behind the model, as in files above 2 GB")
    return 0 if buffer.data is None else len(buffer.data)


def _code(code: Any) -> tuple[str, int, bool]:
    number = runtime.get_builtin_code_from_operator_code(code)
    if number == _schema.BuiltinOperator.CUSTOM:
        return _text(code.customCode) or "CUSTOM", code.version, True
    names = {value: key for key, value in vars(_schema.BuiltinOperator).items()}
    return str(names.get(number, number)), code.version, False


def _graph(graph: Any, buffers: Sequence[int], codes: Sequence[tuple[str, int, bool]]) -> Graph:
    tensors = tuple(_tensor(i, tensor, buffers) for i, tensor in enumerate(_list(graph.tensors)))
    operators = tuple(
        _operator(index, operator, codes, len(tensors))
        for index, operator in enumerate(_list(graph.operators))
    )
    inputs, outputs = _ints(graph.inputs), _ints(graph.outputs)
    for index in (*inputs, *outputs):
        _check_index(index, len(tensors), "an input or output of the graph")
    return Graph(tensors, operators, inputs, outputs)


def _tensor(index: int, tensor: Any, buffers: Sequence[int]) -> Tensor:
    types = {value: key for key, value in vars(_schema.TensorType).items()}
    kind, shape = str(types.get(tensor.type, tensor.type)), _ints(tensor.shape)
    place = f"tensor {index} ({_text(tensor.name)!r})"
    if any(size < 0 for size in shape):
        raise _DamagedError(f"{place} has the shape {list(shape)}")
    _check_index(tensor.buffer, len(buffers), f"the buffer of {place}")
    size = buffers[tensor.buffer]
    scales, zero_points, axis = _quantization(tensor.quantization, shape, place)
    read = Tensor(
        _text(tensor.name), kind, shape, _ints(tensor.shapeSignature) or shape,
        scales, zero_points, axis, size > 0, bool(tensor.isVariable), tensor.sparsity is not None,
    )  # fmt: skip
    if size and kind in _BITS and not read.sparse and size != read.nbytes:
        raise _DamagedError(
            f"{place} is {kind} {list(shape)} of {read.nbytes} bytes, its buffer has {size}"
        )
    return read


def _quantization(
    parameters: Any, shape: tuple[int, ...], place: str
) -> tuple[tuple[float, ...], tuple[int, ...], int]:
    if parameters is None or parameters.scale is None or not len(parameters.scale):
        return (), (), 0
    scales = tuple(float(scale) for scale in parameters.scale)
    zero_points = _ints(parameters.zeroPoint) or (0,) * len(scales)
    axis = int(parameters.quantizedDimension)
    slices = shape[axis] if 0 <= axis < len(shape) else 1
    if len(scales) not in (1, slices) or len(zero_points) != len(scales):
        raise _DamagedError(
            f"{place} {list(shape)} has {len(scales)} scales and {len(zero_points)} zero points"
        )
    if not all(math.isfinite(scale) and scale >= 0 for scale in scales):
        raise _DamagedError(f"{place} has a scale that is negative or not finite")
    return scales, zero_points, axis


def _operator(
    index: int, operator: Any, codes: Sequence[tuple[str, int, bool]], tensors: int
) -> Operator:
    place = f"operator {index}"
    _check_index(operator.opcodeIndex, len(codes), f"the code of {place}")
    inputs, outputs = _ints(operator.inputs), _ints(operator.outputs)
    for tensor in inputs:
        _check_index(tensor, tensors, f"an input of {place}", least=-1)
    for tensor in (*outputs, *_ints(operator.intermediates)):
        _check_index(tensor, tensors, f"an output of {place}")
    name, version, custom = codes[operator.opcodeIndex]
    return Operator(index, name, version, custom, inputs, outputs)


def _signature_names(parsed: Any) -> tuple[dict[int, str], dict[int, str]]:
    """Tensor index to name, of inputs and outputs, by the signature of the main graph."""
    for signature in _list(parsed.signatureDefs):
        if signature.subgraphIndex == 0:
            return (
                {item.tensorIndex: _text(item.name) for item in _list(signature.inputs)},
                {item.tensorIndex: _text(item.name) for item in _list(signature.outputs)},
            )
    return {}, {}


def _check_index(index: int, count: int, what: str, least: int = 0) -> None:
    if not least <= index < count:
        raise _DamagedError(f"{what} is number {index} of {count}")


def _list(values: Any) -> Sequence[Any]:
    return values if values is not None else ()


def _ints(values: Any) -> tuple[int, ...]:
    return tuple(int(value) for value in _list(values))


def _text(value: Any) -> str:
    if value is None:
        return ""
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
