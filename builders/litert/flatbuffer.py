"""A .tflite file as an object: its operators, its names, and bytes that say nothing of chance."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

from edgectl.build.kit.onnxfile import is_usable
from edgectl.build.kit.tfmodel import pair
from edgectl.build.kit.wording import first_line
from edgectl.build.protocol import RefusalError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

IDENTIFIER = b"TFL3"
_ALIGNMENT = 16
"""Of constants, as schema.fbs demands (`force_align: 16`): microcontrollers read them in place."""
_DROPPED = (b"min_runtime_version", b"CONVERSION_METADATA", b"reduced_precision_support")
"""Metadata that say by which converter, and when, the file was made."""
_SIGNATURE = b"serving_default"
_TYPES = {number: name for name, number in vars(schema.TensorType).items() if name[:1] != "_"}
_OPERATORS = {n: name for name, n in vars(schema.BuiltinOperator).items() if name[:1] != "_"}
_NUMPY = {
    "FLOAT32": "float32", "FLOAT16": "float16", "FLOAT64": "float64", "INT8": "int8",
    "INT16": "int16", "INT32": "int32", "INT64": "int64", "UINT8": "uint8", "UINT16": "uint16",
    "UINT32": "uint32", "UINT64": "uint64", "BOOL": "bool",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Placed:
    """An operator where it stands."""

    name: str
    version: int
    node: str
    """The name of its first output, by which viewers show it."""
    float_output: bool
    quantised_input: bool


class _Buffer(schema.BufferT):  # type: ignore[misc]
    """A buffer that the packer aligns, which the generated code forgets."""

    def Pack(self, builder: flatbuffers.Builder) -> int:  # noqa: N802 - the generated name
        vector = None
        if self.data is not None and len(self.data):
            data = np.asarray(self.data, np.uint8).tobytes()
            builder.StartVector(1, len(data), _ALIGNMENT)
            head = builder.head - len(data)
            builder.head = head
            builder.Bytes[head : head + len(data)] = data
            vector = builder.EndVector()
        schema.BufferStart(builder)
        if vector is not None:
            schema.BufferAddData(builder, vector)
        return int(schema.BufferEnd(builder))


def read(data: bytes) -> Any:
    """The file as a `ModelT`; refuses what is none (`does-not-load`)."""
    try:
        if data[4:8] != IDENTIFIER:
            raise ValueError("it does not start as a TFLite model")
        model = schema.ModelT.InitFromObj(schema.Model.GetRootAsModel(data, 0))
        if not model.subgraphs:
            raise ValueError("it has no graph")
    except Exception as error:
        raise RefusalError(
            "does-not-load",
            f"not a readable .tflite file: {first_line(error)}",
            hint="is the file whole? convert the model again",
        ) from error
    return model


def write(model: Any) -> bytes:
    """The bytes of a `ModelT`, with its constants aligned."""
    buffers = []
    for buffer in model.buffers:
        own = _Buffer()
        own.data = buffer.data
        buffers.append(own)
    model.buffers = buffers
    builder = flatbuffers.Builder(1 << 16)
    builder.Finish(model.Pack(builder), file_identifier=IDENTIFIER)
    return bytes(builder.Output())


def finish(
    data: bytes, inputs: Sequence[Mapping[str, Any]], outputs: Sequence[Mapping[str, Any]]
) -> bytes:
    """The file with the declared names, one signature, and no trace of its making.

    `inputs` and `outputs` are in the order of the file's own. Refuses a file in which one tensor
    would need two names (`tensor-twice`).
    """
    model = read(data)
    main = model.subgraphs[0]
    named: dict[int, str] = {}
    for specs, indices in ((inputs, main.inputs), (outputs, main.outputs)):
        for spec, index in zip(specs, indices, strict=True):
            if int(index) in named:
                raise RefusalError(
                    "tensor-twice",
                    f"{named[int(index)]!r} and {spec['name']!r} are one tensor of the model",
                    node=spec["name"],
                    hint="declare one of them, or export the model so that they differ",
                )
            named[int(index)] = spec["name"]
    for index, tensor in enumerate(main.tensors):
        if index in named:
            tensor.name = named[index].encode()
        elif _text(tensor.name) in named.values():
            tensor.name = f"{_text(tensor.name)}/inner".encode()
    model.signatureDefs = [_signature(main, inputs, outputs)]
    _strip(model)
    return write(model)


def _signature(
    main: Any, inputs: Sequence[Mapping[str, Any]], outputs: Sequence[Mapping[str, Any]]
) -> Any:
    found = schema.SignatureDefT()
    found.signatureKey, found.subgraphIndex = _SIGNATURE, 0
    found.inputs = [_entry(s["name"], i) for s, i in zip(inputs, main.inputs, strict=True)]
    found.outputs = [_entry(s["name"], i) for s, i in zip(outputs, main.outputs, strict=True)]
    return found


def _entry(name: str, index: Any) -> Any:
    entry = schema.TensorMapT()
    entry.name, entry.tensorIndex = name.encode(), int(index)
    return entry


def _strip(model: Any) -> None:
    kept = []
    for item in model.metadata or []:
        if item.name in _DROPPED:
            model.buffers[item.buffer].data = None
        else:
            kept.append(item)
    model.metadata = kept or None
    model.description = b"edgectl"


def described(data: bytes) -> tuple[dict[str, Any], dict[str, Any]]:
    """Inputs and outputs by name, in the file's order: numpy dtype, and shape with -1 for open.

    Names are the signature's, where there is one of the main graph, else the tensors' own without
    what TensorFlow puts around them. A quantised tensor counts as float32, as the engine has it.
    """
    model = read(data)
    main = model.subgraphs[0]
    names: dict[int, str] = {}
    for signature in model.signatureDefs or []:
        if signature.subgraphIndex == 0 and not names:
            for item in (*(signature.inputs or []), *(signature.outputs or [])):
                names[int(item.tensorIndex)] = _text(item.name)
    found = []
    for indices in (main.inputs, main.outputs):
        entries = {}
        for index in indices:
            tensor = main.tensors[int(index)]
            plain = _text(tensor.name).removeprefix("serving_default_").split(":")[0]
            entries[names.get(int(index), plain)] = (_dtype(tensor), _shape(tensor))
        found.append(entries)
    return found[0], found[1]


def _dtype(tensor: Any) -> str:
    if is_quantised(tensor):
        return "float32"
    kind = str(_TYPES.get(tensor.type, tensor.type))
    return _NUMPY.get(kind, kind)


def _shape(tensor: Any) -> list[int]:
    signature = tensor.shapeSignature
    chosen = tensor.shape if signature is None or not len(signature) else signature
    return [] if chosen is None else [int(size) for size in chosen]


def is_quantised(tensor: Any) -> bool:
    """Whether integers stand for real values."""
    parameters = tensor.quantization
    scaled = parameters is not None and parameters.scale is not None and len(parameters.scale)
    return bool(scaled) and tensor.type != schema.TensorType.FLOAT32


def ordered(
    data: bytes, inputs: Sequence[Mapping[str, Any]], outputs: Sequence[Mapping[str, Any]]
) -> tuple[list[Mapping[str, Any]], list[Mapping[str, Any]]]:
    """The declared tensors in the order in which the file has them; refuses what differs.

    A batch of 1 in the file stands for an open one in the manifest: the engine runs row by row.
    """
    results = []
    for specs, found, what in zip(
        (inputs, outputs), described(data), ("inputs", "outputs"), strict=True
    ):
        relaxed = {
            name: (dtype, [-1, *shape[1:]] if shape[:1] == [1] else shape)
            for name, (dtype, shape) in found.items()
        }
        names = pair(specs, relaxed, what)
        results.append([specs[names.index(name)] for name in found])
    return results[0], results[1]


def operators(data: bytes) -> list[Placed]:
    """Every operator of every graph, in order."""
    model = read(data)
    return [
        _placed(model, graph, operator)
        for graph in model.subgraphs
        for operator in graph.operators or []
    ]


def _placed(model: Any, graph: Any, operator: Any) -> Placed:
    code = model.operatorCodes[operator.opcodeIndex]
    number = max(code.builtinCode, code.deprecatedBuiltinCode)
    name = str(_OPERATORS.get(number, number))
    if number == schema.BuiltinOperator.CUSTOM:
        name = _text(code.customCode)
    outputs = [graph.tensors[i] for i in operator.outputs]
    inputs = [graph.tensors[i] for i in operator.inputs if i >= 0]
    floats = {schema.TensorType.FLOAT32, schema.TensorType.FLOAT16}
    return Placed(
        name,
        int(code.version),
        _text(outputs[0].name) if outputs else name,
        any(tensor.type in floats for tensor in outputs),
        any(is_quantised(tensor) for tensor in inputs),
    )


def quantised_tensors(data: bytes) -> int:
    """How many tensors hold integers for real values, weights included."""
    model = read(data)
    return sum(is_quantised(t) for graph in model.subgraphs for t in graph.tensors or [])


def check_weights(data: bytes) -> None:
    """Refuse NaN and infinite weights (`weights-not-finite`): a training that diverged."""
    model = read(data)
    for graph in model.subgraphs:
        for tensor in graph.tensors or []:
            held = model.buffers[tensor.buffer].data
            if held is None or tensor.type != schema.TensorType.FLOAT32:
                continue
            values = np.asarray(held, np.uint8).view(np.float32)
            if not is_usable(values):
                raise RefusalError(
                    "weights-not-finite",
                    "weights hold NaN or infinite values",
                    node=_text(tensor.name),
                    hint="the training diverged: train again and export a healthy checkpoint",
                )


def boundary(data: bytes) -> str:
    """`int8` if every quantisable input and output is quantised, else `float`."""
    main = read(data).subgraphs[0]
    ports = [main.tensors[int(i)] for i in (*main.inputs, *main.outputs)]
    return "int8" if all(t.type != schema.TensorType.FLOAT32 for t in ports) else "float"


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value or "")
