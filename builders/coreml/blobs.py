"""The weights of an ML program, which lie in files beside its specification.

Offsets in the specification are trusted by Core ML, which maps the file into memory: here each is
held against the file first. The layout is that of coremltools' MILBlob/Blob/StorageFormat.hpp: a
header of 64 bytes, then for each blob 64 bytes of metadata (little-endian: sentinel, type, size and
offset of the data) and, aligned to 64 bytes, the data.
"""

from __future__ import annotations

import math
import struct
from typing import TYPE_CHECKING, Any

from coremltools.proto import MIL_pb2

from edgectl.build.protocol import RefusalError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

_PREFIX = "@model_path/"
_METADATA = struct.Struct("<IIQQ")
_SENTINEL = 0xDEADBEEF
_ALIGNMENT = 64
_DATA = MIL_pb2.DataType
_BITS = {
    _DATA.BOOL: 8, _DATA.FLOAT8E4M3FN: 8, _DATA.FLOAT8E5M2: 8, _DATA.FLOAT16: 16, _DATA.FLOAT32: 32,
    _DATA.FLOAT64: 64, _DATA.BFLOAT16: 16, _DATA.INT4: 4, _DATA.INT8: 8, _DATA.INT16: 16,
    _DATA.INT32: 32, _DATA.INT64: 64, _DATA.UINT1: 1, _DATA.UINT2: 2, _DATA.UINT3: 3,
    _DATA.UINT4: 4, _DATA.UINT6: 6, _DATA.UINT8: 8, _DATA.UINT16: 16, _DATA.UINT32: 32,
    _DATA.UINT64: 64,
}  # fmt: skip


def operations(program: MIL_pb2.Program) -> Iterator[MIL_pb2.Operation]:
    """Every operation of an ML program, those inside blocks of control flow included."""
    for function in program.functions.values():
        for block in function.block_specializations.values():
            yield from _operations(block)


def _operations(block: MIL_pb2.Block) -> Iterator[MIL_pb2.Operation]:
    for operation in block.operations:
        yield operation
        for inner in operation.blocks:
            yield from _operations(inner)


def check_blobs(program: MIL_pb2.Program, files: Mapping[str, Path]) -> None:
    """Refuse weights that are not there, not whole, or not what the program says (`weights-*`).

    `files` has the files beside the specification by relative path.
    """
    for operation in operations(program):
        for value in _values(operation):
            if value.WhichOneof("value") == "blobFileValue":
                problem = _problem(value, files)
                if problem:
                    raise RefusalError(
                        "weights-broken",
                        f"an operation {operation.type} {problem}",
                        node=_name(operation),
                        hint="copy the whole .mlpackage directory, or save the model again",
                    )


def _values(operation: MIL_pb2.Operation) -> Iterator[Any]:
    yield from operation.attributes.values()
    for argument in operation.inputs.values():
        for binding in argument.arguments:
            if binding.WhichOneof("binding") == "value":
                yield binding.value


def _name(operation: MIL_pb2.Operation) -> str:
    return operation.outputs[0].name if operation.outputs else operation.type


def _problem(value: MIL_pb2.Value, files: Mapping[str, Path]) -> str | None:
    """What is wrong with one reference into a file of weights, None if nothing is."""
    blob = value.blobFileValue
    path = files.get(blob.fileName.removeprefix(_PREFIX))
    if not blob.fileName.startswith(_PREFIX) or path is None:
        return f"has its weights in {blob.fileName!r}, which is not a file of the package"
    wanted = _size(value.type.tensorType)
    if wanted is None:
        return "has weights of no fixed shape or known type"
    end = path.stat().st_size
    if blob.offset % _ALIGNMENT or blob.offset + _METADATA.size > end:
        return f"has its weights at byte {blob.offset} of {blob.fileName}, which has {end}"
    with path.open("rb") as file:
        file.seek(blob.offset)
        sentinel, _, size, start = _METADATA.unpack(file.read(_METADATA.size))
    if sentinel != _SENTINEL:
        return f"has its weights at byte {blob.offset} of {blob.fileName}, where none begin"
    if start % _ALIGNMENT or start + size > end:
        return f"has weights of {size} bytes from byte {start} of {blob.fileName}, which has {end}"
    if size != wanted:
        return f"has weights of {size} bytes where its type and shape need {wanted}"
    return None


def _size(tensor: MIL_pb2.TensorType) -> int | None:
    """Bytes that a tensor of weights takes."""
    bits = _BITS.get(tensor.dataType)
    sizes = [
        dimension.constant.size if dimension.WhichOneof("dimension") == "constant" else None
        for dimension in tensor.dimensions
    ]
    if bits is None or None in sizes:
        return None
    return -(-math.prod(sizes) * bits // 8)
