"""Reading a source: one file, or a directory with a model and files of weights beside it.

ONNX names such a file by a path, with an offset and a length in it. Each is held against what is in
the directory before a byte is read, and everything becomes one file, which one digest covers.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import onnx

from edgectl.build.kit.archive import check_tree, is_inside
from edgectl.build.kit.onnxfile import tensors_of
from edgectl.build.kit.wording import first_line, listed
from edgectl.build.protocol import RefusalError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

MAX_MODEL_BYTES = (2 << 30) - 1
"""Protobuf's own limit for one message."""
MAX_FILES = 20_000
"""Some exporters write a file for each weight."""
MAX_DIRECTORY_BYTES = 1 << 40
"""Only listed, never read: what is too large is refused by the sum of its weights."""
_BITS = {
    "UINT4": 4, "INT4": 4, "FLOAT4E2M1": 4, "UINT2": 2, "INT2": 2,
}  # fmt: skip
"""Elements smaller than a byte are packed."""


def read_source(path: Path) -> onnx.ModelProto:
    """The model with all its weights in it.

    Refuses what is no ONNX file (`does-not-load`), is larger than one file can be (`too-large`,
    found out by sizes alone), keeps weights in files that are not in its directory
    (`external-data`), or has weights of another size than their shape (`weights-broken`).
    """
    files: dict[str, Path] = {}
    if path.is_dir():
        files = check_tree(path, max_files=MAX_FILES, max_bytes=MAX_DIRECTORY_BYTES)
    model = _parse(_model_file(files) if path.is_dir() else path)
    outside = [
        tensor
        for tensor in tensors_of(model.graph)
        if tensor.data_location == onnx.TensorProto.EXTERNAL
    ]
    if outside and not path.is_dir():
        raise RefusalError(
            "external-data",
            "weights are outside the file, where no digest covers them",
            node=outside[0].name,
            hint="put the model and its files of weights into one directory and set source.path to "
            "it, or save one file: onnx.save_model(onnx.load(path), path)",
        )
    places = [(tensor, *_place(tensor, files)) for tensor in outside]
    _check_total(sum(length for *_, length in places) + model.ByteSize())
    for tensor in tensors_of(model.graph):
        if tensor.data_location != onnx.TensorProto.EXTERNAL:
            check_size(tensor)
    for tensor, file, offset, length in places:
        with file.open("rb") as stream:
            stream.seek(offset)
            tensor.raw_data = stream.read(length)
        tensor.ClearField("external_data")
        tensor.ClearField("data_location")
    return model


def _model_file(files: Mapping[str, Path]) -> Path:
    models = [name for name in files if name.endswith(".onnx")]
    name = "model.onnx" if "model.onnx" in models else models[0] if len(models) == 1 else None
    if name is None:
        raise RefusalError(
            "no-model-file",
            f"the directory has no model.onnx and not one other .onnx file: {listed(models)}",
            hint="name it model.onnx, or set source.path to the file",
        )
    return files[name]


def _parse(path: Path) -> onnx.ModelProto:
    _check_total(path.stat().st_size)
    try:
        # Protobuf bounds the depth of nesting, and every size by that of the file.
        model = onnx.load_model(path, load_external_data=False)
        if not model.graph.node:
            raise ValueError("it has no graph")
    except Exception as error:
        raise does_not_load(error) from error
    return model


def does_not_load(error: Exception) -> RefusalError:
    """The refusal of a file that is no model."""
    return RefusalError(
        "does-not-load",
        f"not a valid ONNX model: {first_line(error)}",
        hint="check it with onnx.checker.check_model, and export it again",
    )


def _check_total(size: int) -> None:
    if size > MAX_MODEL_BYTES:
        raise RefusalError(
            "too-large",
            f"the model and its weights are {size} bytes; one ONNX file holds {MAX_MODEL_BYTES}",
            hint="split the model, or make its weights smaller before the import (float16, or int4 "
            "MatMulNBits by onnxruntime.quantization)",
        )


def _place(tensor: onnx.TensorProto, files: Mapping[str, Path]) -> tuple[Path, int, int]:
    """File, offset and length of weights that lie outside; refuses a place that is not there."""
    entries = {entry.key: entry.value for entry in tensor.external_data}
    location = entries.get("location", "")
    if not is_inside(location) or location not in files:
        raise _outside(tensor, f"are in {location!r}, which is not a file of the model's directory")
    wanted = byte_size(tensor)
    size = files[location].stat().st_size
    try:
        offset = int(entries.get("offset", "0"))
        length = int(entries.get("length", str(wanted)))
    except ValueError as error:
        raise _outside(tensor, f"are at no number of {location!r}") from error
    if offset < 0 or length < 0 or offset + length > size:
        raise _outside(
            tensor, f"are {length} bytes from {offset} of {location!r}, which has {size}"
        )
    if length != wanted:
        raise _broken(tensor, f"has {length} bytes, its shape {list(tensor.dims)} needs {wanted}")
    return files[location], offset, length


def check_size(tensor: onnx.TensorProto) -> None:
    """Refuse a tensor in the file whose data is not as long as its shape says."""
    wanted = byte_size(tensor)
    if tensor.HasField("raw_data") and len(tensor.raw_data) != wanted:
        raise _broken(
            tensor,
            f"has {len(tensor.raw_data)} bytes, its shape {list(tensor.dims)} needs {wanted}",
        )


def byte_size(tensor: onnx.TensorProto) -> int:
    """Bytes of the raw data that a tensor's type and shape need; refuses a shape that is none."""
    if any(size < 0 for size in tensor.dims):
        raise _broken(tensor, f"has the shape {list(tensor.dims)}")
    try:
        name = onnx.TensorProto.DataType.Name(tensor.data_type)
        item = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
    except (KeyError, ValueError) as error:
        raise _broken(tensor, f"has the datatype {tensor.data_type}") from error
    count = math.prod(tensor.dims)
    size = -(-count * _BITS[name] // 8) if name in _BITS else count * item
    _check_total(size)
    return size


def _outside(tensor: onnx.TensorProto, why: str) -> RefusalError:
    return RefusalError(
        "external-data",
        f"weights {why}",
        node=tensor.name,
        hint="copy every file of weights beside the model, whole, or save it as one file",
    )


def _broken(tensor: onnx.TensorProto, why: str) -> RefusalError:
    return RefusalError(
        "weights-broken",
        f"a tensor of weights {why}",
        node=tensor.name,
        hint="is the file whole? export the model again",
    )
