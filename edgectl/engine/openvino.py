"""OpenVINO as an engine (https://docs.openvino.ai)."""

from __future__ import annotations

import re
import sys
import threading
from typing import TYPE_CHECKING, Any, NoReturn

# OpenVINO reports each import and conversion to a statistics server, unless this package of it is
# missing. A device speaks to its registry and to nobody else.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]

import openvino as ov  # noqa: E402

from edgectl.engine.errors import (  # noqa: E402
    EngineError,
    EngineUnavailableError,
    UnsupportedError,
)
from edgectl.engine.signature import TensorSpec  # noqa: E402
from edgectl.engine.tensors import check_inputs  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from edgectl.engine.options import EngineOptions

MODEL_FILE = "model.xml"
DEFAULT_DEVICE = "CPU"

PRECISION_INFO = ["edgectl", "precision"]
"""Where the builder writes the variant's precision in the model's runtime info."""

_ANY_BATCH = -1

_DATATYPES = {
    "boolean": "BOOL", "u8": "UINT8", "u16": "UINT16", "u32": "UINT32", "u64": "UINT64",
    "i8": "INT8", "i16": "INT16", "i32": "INT32", "i64": "INT64",
    "f16": "FP16", "f32": "FP32", "f64": "FP64",
}  # fmt: skip


class OpenVinoSession:
    """A model compiled by OpenVINO; satisfies `edgectl.engine.session.Session`.

    A model with a free batch is compiled for one row, and once more for any number of rows when
    they first come: with a fixed shape OpenVINO plans memory and kernels ahead (in int8 on a Zen 4
    core, MobileNetV2 took 4 to 15 % less CPU time, ResNet-50 1 %). Runs take turns: there is one
    stream, made for latency, and each further request would hold its own memory.
    """

    def __init__(
        self, core: ov.Core, model: ov.Model, device: str, properties: Mapping[str, Any]
    ) -> None:
        self.engine = f"openvino {ov.__version__.split('-')[0]}"
        self.inputs = tuple(_spec(port) for port in model.inputs)
        self.outputs = tuple(_spec(port) for port in model.outputs)
        self._core, self._device, self._properties = core, device, dict(properties)
        self._model: ov.Model | None = model
        self._requests: dict[int, ov.InferRequest] = {}
        self._lock = threading.Lock()
        self._free_batch = all(
            spec.shape[:1] == (-1,) and -1 not in spec.shape[1:] for spec in self.inputs
        )
        self.providers = self._compile(model, 1 if self._free_batch else _ANY_BATCH)

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Infer; see `Session.run`."""
        checked = check_inputs(self.inputs, inputs)
        rows = [checked[spec.name] for spec in self.inputs]
        with self._lock:
            request = self._request(rows)
            try:
                answers = request.infer(dict(enumerate(rows)), share_inputs=True)
            except RuntimeError as error:
                raise EngineError(f"the model failed to run: {cause(error)}") from error
            return {spec.name: answers[place] for place, spec in enumerate(self.outputs)}

    def close(self) -> None:
        """Free the model; a `run` in progress is waited for."""
        with self._lock:
            self._requests.clear()
            self._model = None

    def _request(self, rows: Sequence[NDArray[Any]]) -> ov.InferRequest:
        """The request that takes these rows, compiled if they are the first of their kind."""
        if self._model is None:
            raise EngineError("the model is closed")
        batch = 1 if self._free_batch and all(len(array) == 1 for array in rows) else _ANY_BATCH
        if batch not in self._requests:
            try:
                self._compile(self._model, batch)
            except RuntimeError as error:
                raise EngineError(f"the model failed to compile: {cause(error)}") from error
        return self._requests[batch]

    def _compile(self, model: ov.Model, batch: int) -> tuple[str, ...]:
        """Compile for one row or for any number; the devices that run it."""
        if batch != _ANY_BATCH:
            model = model.clone()
            model.reshape({i: [batch, *spec.shape[1:]] for i, spec in enumerate(self.inputs)})
        compiled = self._core.compile_model(model, self._device, self._properties)
        self._requests[batch] = compiled.create_infer_request()
        return tuple(compiled.get_property("EXECUTION_DEVICES"))


def load(path: Path, *, options: EngineOptions, threads: int) -> OpenVinoSession:
    """Load an OpenVINO IR (`model.xml` beside `model.bin`); see
    `edgectl.engine.session.load_session`.

    With `options.cache`, what OpenVINO compiles for this machine is kept there, and the next load
    takes it from there. Raises EngineUnavailableError for a device that is not here.
    """
    device = options.device or DEFAULT_DEVICE
    core = ov.Core()
    _check_device(core, device)
    if options.cache is not None:
        try:
            options.cache.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise EngineError(
                f"the cache {options.cache} cannot be made: {error.strerror or error}"
            ) from error
    try:
        model = core.read_model(path)
        return OpenVinoSession(
            core, model, device, _properties(device, _precision(model), options.cache, threads)
        )
    except RuntimeError as error:
        _raise_load_error(path, error)


def _check_device(core: ov.Core, device: str) -> None:
    """`device` may be one (`GPU.0`), or a rule over several (`AUTO:GPU,CPU`), all of them here."""
    if device == DEFAULT_DEVICE:
        return  # It comes with OpenVINO; looking for the others would load 14 MB of their drivers.
    available = core.available_devices
    rule, _, listed = device.partition(":")
    wanted = listed.split(",") if listed else [] if rule == "AUTO" else [rule]
    here = {*available, *(name.partition(".")[0] for name in available)}
    if absent := [name for name in wanted if name.lstrip("-") not in here]:
        raise EngineUnavailableError(
            f"OpenVINO finds no {' and no '.join(absent)} on this machine (it finds: "
            f"{', '.join(available) or 'none'}); use one of these as the target's engine.device, "
            "or install the driver of the missing one"
        )


def _precision(model: ov.Model) -> str:
    return str(model.get_rt_info(PRECISION_INFO).value) if model.has_rt_info(PRECISION_INFO) else ""


def _properties(device: str, precision: str, cache: Path | None, threads: int) -> dict[str, Any]:
    """OpenVINO's properties for latency.

    Where a CPU has bf16 OpenVINO computes in it unasked, even a model in fp32, and the answers then
    differ from machine to machine: here, it may for a bf16 variant alone. A GPU or NPU computes in
    fp16 what is not fp32.
    """
    cpu = {
        "INFERENCE_NUM_THREADS": threads,
        # Pinned threads of two processes would share the first cores and leave the others idle.
        "ENABLE_CPU_PINNING": False,
    }
    exact = precision == "fp32" or (device == "CPU" and precision != "bf16")
    properties: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY"}
    if device == "CPU":
        properties |= cpu
    elif device.partition(":")[0] == "AUTO":
        properties["DEVICE_PROPERTIES"] = {"CPU": cpu}
    if exact and not device.startswith("NPU"):
        properties["EXECUTION_MODE_HINT"] = "ACCURACY"
    if cache is not None:
        properties["CACHE_DIR"] = str(cache)
    return properties


def _spec(port: Any) -> TensorSpec:
    name = min(port.get_names(), default="") or port.get_node().get_friendly_name()
    element = port.get_element_type().get_type_name()
    if element not in _DATATYPES:
        raise UnsupportedError(
            f"tensor {name!r} holds {element}, which the Open Inference Protocol cannot say"
        )
    partial = port.get_partial_shape()
    shape = () if partial.rank.is_dynamic else tuple(_size(dimension) for dimension in partial)
    return TensorSpec(name, _DATATYPES[element], shape)


def _size(dimension: ov.Dimension) -> int:
    return -1 if dimension.is_dynamic else int(dimension.get_length())


# How OpenVINO 2026 names what it lacks: the reader of the file, then the plugin of the device.
_LACKS = (
    re.compile(r"doesn't contain the operation with type: (?P<operator>\w+)"),
    re.compile(r"[Uu]nsupported operation of type:? (?P<operator>\w+) name:? (?P<node>\S+)"),
)


def _raise_load_error(path: Path, error: Exception) -> NoReturn:
    text = cause(error)
    if not path.is_file():
        raise EngineError(f"model file {path} does not exist") from error
    for pattern in _LACKS:
        if match := pattern.search(text):
            operator = match["operator"]
            node = match.groupdict().get("node") or _node_of(path, operator)
            at = f" (node {node!r})" if node else ""
            raise UnsupportedError(
                f"{path.name}: OpenVINO {ov.__version__.split('-')[0]} cannot run operator "
                f"{operator}{at}: {text}",
                operator=operator,
                node=node,
            ) from error
    raise EngineError(
        f"{path} does not load in OpenVINO {ov.__version__.split('-')[0]}, or is cut short: {text}"
    ) from error


def _node_of(path: Path, operator: str) -> str | None:
    """The first layer of a type in an IR that OpenVINO does not read."""
    text = path.read_text(encoding="utf-8", errors="replace")
    found = re.search(rf'<layer [^>]*?name="([^"]*)"[^>]*? type="{re.escape(operator)}"', text)
    return found[1] if found else None


def cause(error: Exception) -> str:
    """OpenVINO's message on one line, without the positions in its C++ source."""
    lines = [line.strip() for line in str(error).splitlines()]
    kept = [
        line
        for line in lines
        if line and not re.match(r"(Exception from|Check '.*failed at)", line)
    ]
    return " ".join(kept) or type(error).__name__
