"""Tensors as the Open Inference Protocol names them, and numpy arrays: datatypes and checks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from edgectl.engine.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from numpy.typing import NDArray

    from edgectl.engine.signature import TensorSpec

_DTYPES: dict[str, np.dtype[Any]] = {
    "BOOL": np.dtype(np.bool_),
    "UINT8": np.dtype(np.uint8),
    "UINT16": np.dtype(np.uint16),
    "UINT32": np.dtype(np.uint32),
    "UINT64": np.dtype(np.uint64),
    "INT8": np.dtype(np.int8),
    "INT16": np.dtype(np.int16),
    "INT32": np.dtype(np.int32),
    "INT64": np.dtype(np.int64),
    "FP16": np.dtype(np.float16),
    "FP32": np.dtype(np.float32),
    "FP64": np.dtype(np.float64),
    "BYTES": np.dtype(np.object_),
}

_DATATYPES = {dtype: name for name, dtype in _DTYPES.items()}


def numpy_dtype(datatype: str) -> np.dtype[Any]:
    """The numpy dtype, in this machine's byte order, of an OIP datatype such as `FP32`.

    `BYTES` is an object array. Raises InputError for a name that OIP does not have.
    """
    try:
        return _DTYPES[datatype]
    except KeyError:
        raise InputError(f"datatype {datatype!r} is not one of {', '.join(_DTYPES)}") from None


def datatype_of(dtype: np.dtype[Any]) -> str:
    """The OIP datatype of a numpy dtype; text of any width is `BYTES`.

    Raises InputError for dtypes that OIP cannot say, such as complex numbers and dates.
    """
    if dtype.kind in "SUO":
        return "BYTES"
    name = _DATATYPES.get(dtype if dtype.isnative else dtype.newbyteorder("="))
    if name is None:
        raise InputError(f"numpy dtype {dtype} has no datatype in the Open Inference Protocol")
    return name


def shape_matches(shape: Sequence[int], declared: Sequence[int]) -> bool:
    """Whether a concrete shape fits a declared one, where -1 fits any size, zero included."""
    return len(shape) == len(declared) and all(
        wanted in (-1, size) for size, wanted in zip(shape, declared, strict=True)
    )


def check(spec: TensorSpec, array: NDArray[Any]) -> NDArray[Any]:
    """Return the array ready for an engine: declared dtype and shape, native order, contiguous.

    Numbers are never converted: a wrong datatype is the caller's mistake, and silently rounding or
    wrapping values would hide it. Values must be finite, because a NaN runs through a network
    without an error and comes out as a confident wrong answer.

    Raises InputError that names the tensor, what it is, and what it should be.
    """
    datatype = datatype_of(array.dtype)
    if datatype != spec.datatype:
        raise InputError(f"input {spec.name!r} is {datatype}, but the model takes {spec.datatype}")
    if not shape_matches(array.shape, spec.shape):
        raise InputError(
            f"input {spec.name!r} has shape {list(array.shape)}, "
            f"but the model takes {list(spec.shape)}"
            + (" (-1 is any size)" if -1 in spec.shape else "")
        )
    if array.dtype.kind == "f" and not bool(np.isfinite(array).all()):
        raise InputError(f"input {spec.name!r} holds NaN or infinite values")
    if datatype == "BYTES":
        return _texts(spec, array)
    return np.ascontiguousarray(array, dtype=numpy_dtype(datatype)).reshape(array.shape)


def _texts(spec: TensorSpec, array: NDArray[Any]) -> NDArray[Any]:
    """Every element as str: engines take text, and ONNX Runtime reads bytes as their repr."""
    texts = np.empty(array.shape, np.object_)
    for place, value in np.ndenumerate(array):
        if not isinstance(value, str | bytes):
            raise InputError(f"input {spec.name!r} holds {value!r}, which is not text")
        try:
            texts[place] = value if isinstance(value, str) else value.decode()
        except UnicodeDecodeError as error:
            raise InputError(f"input {spec.name!r} holds text that is not UTF-8") from error
    return texts


def check_inputs(
    specs: Sequence[TensorSpec], inputs: Mapping[str, NDArray[Any]]
) -> dict[str, NDArray[Any]]:
    """`check` every input; raises InputError also for missing, extra and unequal batch sizes."""
    names = [spec.name for spec in specs]
    if missing := [name for name in names if name not in inputs]:
        raise InputError(f"missing input {_listed(missing)}; the model takes {_listed(names)}")
    if extra := sorted(set(inputs) - set(names)):
        raise InputError(f"unknown input {_listed(extra)}; the model takes {_listed(names)}")
    checked = {spec.name: check(spec, inputs[spec.name]) for spec in specs}
    batches = {spec.name: checked[spec.name].shape[0] for spec in specs if spec.shape[:1] == (-1,)}
    if len(set(batches.values())) > 1:
        sizes = ", ".join(f"{name!r} {size}" for name, size in batches.items())
        raise InputError(f"inputs of one request have different batch sizes: {sizes}")
    return checked


def _listed(names: Sequence[str]) -> str:
    return ", ".join(repr(name) for name in names)
