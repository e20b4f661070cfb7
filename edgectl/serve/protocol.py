"""Inference requests and responses of the Open Inference Protocol, REST form, without any IO.

Follows https://github.com/kserve/open-inference-protocol (rest/inference_rest.md) and Triton's
extensions of it: binary tensor data, classification, and the raw binary request. A body is a JSON
object, followed by the binary tensors in the order in which the JSON names them; the header
`Inference-Header-Content-Length` says where the JSON ends.

Parsing stops at the JSON: a tensor's data is decoded (`InputTensor.decode`) only after its name,
datatype and shape were found to be what the model takes.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgectl.engine.errors import InputError
from edgectl.engine.tensors import datatype_of, numpy_dtype
from edgectl.engine.transforms import sharing
from edgectl.serve import codec

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from edgectl.engine.signature import TensorSpec
    from edgectl.serve.codec import Array

JSON_LIMIT = 4 << 20
"""Largest JSON part of a request, in bytes: everybody else waits while it is parsed, and it takes
many times the memory. Larger tensors go as binary data."""
HEADER_LENGTH = "inference-header-content-length"
_MAX_TENSORS = 256
_MAX_OBJECTS = 4 * _MAX_TENSORS + 64
"""Tensors of both lists, each with its parameters, and some that nobody here reads."""
_MAX_NAME = 256
_MAX_TIMEOUT = (1 << 64) - 1


@dataclass(frozen=True, slots=True)
class InputTensor:
    """One input as it was sent; `data` is JSON or, in the binary form, a view of the body."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    data: list[Any] | memoryview

    def decode(self) -> Array:
        """The tensor; raises InputError if the data is not what datatype and shape say."""
        if isinstance(self.data, memoryview):
            return codec.from_binary(self.data, self.datatype, self.shape, self.name)
        return codec.from_json(self.data, self.datatype, self.shape, self.name)


@dataclass(frozen=True, slots=True)
class RequestedOutput:
    """One output that the client asked for."""

    name: str
    binary: bool
    classification: int = 0
    """Answer with this many best classes (`score:index:label`) instead of the tensor."""
    postprocess: bool | None = None
    """Answer with what the output's declared transforms make of the tensor. None, where the client
    does not say, is yes for the answers of a detector, and no for the tensors of any other."""


@dataclass(frozen=True, slots=True)
class InferRequest:
    """A parsed request; no `outputs` means all of them."""

    inputs: tuple[InputTensor, ...]
    outputs: tuple[RequestedOutput, ...] = ()
    id: str | None = None
    binary_output: bool = False
    """The form of outputs that were not asked for one by one."""
    timeout: float | None = None
    """Seconds that the client gives the request."""


@dataclass(frozen=True, slots=True)
class OutputTensor:
    """One output to answer with."""

    name: str
    array: Array
    binary: bool


def parse_request(body: bytes, header_length: int | None) -> InferRequest:
    """Parse a request body whose first `header_length` bytes (all, if None) are JSON.

    Raises InputError on whatever is not a request.
    """
    size = len(body) if header_length is None else header_length
    if not 0 < size <= len(body):
        raise InputError(
            f"{HEADER_LENGTH} is {size}, but must be from 1 to the {len(body)} bytes of the body"
        )
    if size > JSON_LIMIT:
        raise InputError(
            f"the JSON part is {size} bytes, over the limit of {JSON_LIMIT}:"
            " send large tensors as binary data"
        )
    value = _object(_parse_json(body[:size]), "the request")
    parameters = _parameters(value, "the request")
    binary_output = _flag(parameters, "binary_data_output", default=False)
    identity = value.get("id")
    if identity is not None and not isinstance(identity, str):
        raise InputError("'id' must be a string")
    return InferRequest(
        _parse_inputs(value, memoryview(body)[size:]),
        _parse_outputs(value, default_binary=binary_output),
        identity,
        binary_output,
        _parse_timeout(parameters),
    )


def raw_request(specs: Sequence[TensorSpec], body: bytes, *, encoded: bool) -> InferRequest:
    """A request whose whole body is the content of the model's only input.

    Either one encoded datum, such as an image, which several inputs may share, or (Triton's raw
    binary request) a tensor, whose one open dimension follows from its size; outputs answer such a
    tensor in binary form. Raises InputError.
    """
    spec = specs[0]
    if len(specs) != max(1, len(sharing(specs, spec)) if encoded else 1):
        raise InputError(f"the model takes {len(specs)} inputs, so the request must be in JSON")
    if encoded or spec.datatype == "BYTES":
        element = memoryview(codec.encode_element(body))
        return InferRequest((InputTensor(spec.name, "BYTES", (1,), element),))
    known = math.prod(size for size in spec.shape if size != -1)
    row = known * numpy_dtype(spec.datatype).itemsize
    if spec.shape.count(-1) > 1 or not body or not row or len(body) % row:
        raise InputError(
            f"{len(body)} bytes are not {spec.datatype} of shape {list(spec.shape)};"
            " send the shape in JSON"
        )
    shape = tuple(len(body) // row if size == -1 else size for size in spec.shape)
    tensor = InputTensor(spec.name, spec.datatype, shape, memoryview(body))
    return InferRequest((tensor,), binary_output=True)


def encode_response(
    model: str, version: str, outputs: Sequence[OutputTensor], identity: str | None
) -> tuple[bytes, int | None]:
    """Encode a response: the body, and the length of its JSON if binary tensors follow it.

    Raises InputError if an output cannot be said in the form that was asked for.
    """
    binary: list[bytes] = []
    described: list[dict[str, Any]] = []
    for output in outputs:
        tensor: dict[str, Any] = {
            "name": output.name,
            "datatype": datatype_of(output.array.dtype),
            "shape": list(output.array.shape),
        }
        if output.binary:
            data = codec.to_binary(output.array)
            tensor["parameters"] = {"binary_data_size": len(data)}
            binary.append(data)
        else:
            tensor["data"] = codec.to_json(output.array, output.name)
        described.append(tensor)
    value: dict[str, Any] = {"model_name": model, "model_version": version, "outputs": described}
    if identity is not None:
        value["id"] = identity
    header = json.dumps(value, separators=(",", ":"), allow_nan=False).encode()
    if not binary:
        return header, None
    return b"".join((header, *binary)), len(header)


def _parse_json(data: bytes) -> object:
    try:
        value: object = json.loads(
            data, parse_constant=_refuse_constant, object_pairs_hook=_Objects().make
        )
    except RecursionError as error:
        raise InputError("the JSON is nested too deeply") from error
    except UnicodeDecodeError as error:
        raise InputError("the JSON is not UTF-8") from error
    except ValueError as error:
        raise InputError(f"not valid JSON: {error}") from error
    return value


class _Objects:
    """The objects of one JSON text: not too many, and no key twice, of which each reader would
    believe another."""

    def __init__(self) -> None:
        self._left = _MAX_OBJECTS

    def make(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        """Make one object; raises ValueError."""
        self._left -= 1
        if self._left < 0:
            raise ValueError(f"more than {_MAX_OBJECTS} objects")
        value = dict(pairs)
        if len(value) < len(pairs):
            counts = Counter(key for key, _ in pairs)
            twice = next(key for key, count in counts.items() if count > 1)
            raise ValueError(f"the key {twice[:_MAX_NAME]!r} is there twice")
        return value


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a JSON number")


def _parse_inputs(value: Mapping[str, Any], binary: memoryview) -> tuple[InputTensor, ...]:
    items = _items(value.get("inputs"), "inputs")
    if not items:
        raise InputError("'inputs' must be a list of at least one tensor")
    inputs = []
    position = 0
    for item in items:
        tensor, taken = _parse_input(item, binary[position:])
        position += taken
        inputs.append(tensor)
    if position != len(binary):
        raise InputError(
            f"{len(binary)} bytes follow the JSON, but the inputs' binary_data_size is {position}"
            " together"
        )
    _refuse_duplicates([tensor.name for tensor in inputs], "input")
    return tuple(inputs)


def _parse_input(item: object, binary: memoryview) -> tuple[InputTensor, int]:
    value = _object(item, "an input")
    name = _name(value, "input")
    shape = codec.parse_shape(value.get("shape"), name)
    datatype = codec.parse_datatype(value.get("datatype"), name)
    parameters = _parameters(value, f"input {name!r}")
    _refuse_shared_memory(parameters, name)
    size = parameters.get("binary_data_size")
    data = value.get("data")
    if size is None:
        if not isinstance(data, list):
            raise InputError(f"input {name!r}: needs 'data' as a list, or binary_data_size")
        return InputTensor(name, datatype, shape, data), 0
    if data is not None:
        raise InputError(f"input {name!r}: has both 'data' and binary_data_size")
    if type(size) is not int or not 0 <= size <= len(binary):
        raise InputError(
            f"input {name!r}: binary_data_size must be an integer from 0 to the"
            f" {len(binary)} bytes that are left in the body"
        )
    return InputTensor(name, datatype, shape, binary[:size]), size


def _parse_outputs(
    value: Mapping[str, Any], *, default_binary: bool
) -> tuple[RequestedOutput, ...]:
    outputs = []
    for item in _items(value.get("outputs", []), "outputs"):
        output = _object(item, "an output")
        name = _name(output, "output")
        parameters = _parameters(output, f"output {name!r}")
        _refuse_shared_memory(parameters, name)
        count = parameters.get("classification", 0)
        if type(count) is not int or count < 0:
            raise InputError(f"output {name!r}: 'classification' must be a number of classes")
        binary = _flag(parameters, "binary_data", default=default_binary)
        postprocess = None
        if "postprocess" in parameters:
            postprocess = _flag(parameters, "postprocess", default=False)
        outputs.append(RequestedOutput(name, binary, count, postprocess))
    _refuse_duplicates([output.name for output in outputs], "output")
    return tuple(outputs)


def _parse_timeout(parameters: Mapping[str, Any]) -> float | None:
    """`timeout` is in microseconds, as Triton and its clients have it."""
    timeout = parameters.get("timeout")
    if timeout is None:
        return None
    if type(timeout) is not int or not 0 <= timeout <= _MAX_TIMEOUT:
        raise InputError("'timeout' must be a whole number of microseconds, in 64 bits")
    return timeout / 1e6 if timeout else None


def _object(value: object, what: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise InputError(f"{what} must be a JSON object")
    return value


def _items(value: object, field: str) -> list[Any]:
    if not isinstance(value, list):
        raise InputError(f"'{field}' must be a list")
    if len(value) > _MAX_TENSORS:
        raise InputError(f"'{field}' has more than {_MAX_TENSORS} tensors")
    return value


def _parameters(value: Mapping[str, Any], what: str) -> Mapping[str, Any]:
    parameters = value.get("parameters")
    if parameters is None:
        return {}
    return _object(parameters, f"'parameters' of {what}")


def _name(value: Mapping[str, Any], kind: str) -> str:
    name = value.get("name")
    if not isinstance(name, str) or not name:
        raise InputError(f"an {kind} has no 'name'")
    if len(name) > _MAX_NAME:
        raise InputError(f"the name of an {kind} is longer than {_MAX_NAME} characters")
    return name


def _flag(parameters: Mapping[str, Any], field: str, *, default: bool) -> bool:
    value = parameters.get(field, default)
    if not isinstance(value, bool):
        raise InputError(f"'{field}' must be true or false")
    return value


def _refuse_shared_memory(parameters: Mapping[str, Any], tensor: str) -> None:
    if "shared_memory_region" in parameters:
        raise InputError(f"tensor {tensor!r}: shared memory is not supported")


def _refuse_duplicates(names: list[str], kind: str) -> None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise InputError(f"{kind} {name!r} is there twice")
        seen.add(name)
