"""ONNX Runtime as an engine (https://onnxruntime.ai/docs/api/python)."""

from __future__ import annotations

import ctypes
import re
from typing import TYPE_CHECKING, Any, NoReturn

import onnxruntime as ort
from onnxruntime.capi import onnxruntime_pybind11_state as state

from edgectl.engine.errors import EngineError, InputError, UnsupportedError
from edgectl.engine.signature import TensorSpec
from edgectl.engine.tensors import check_inputs

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from edgectl.engine.options import EngineOptions

_CPU = "CPUExecutionProvider"
_FATAL_ONLY = 4
_LEVELS = {
    "none": ort.GraphOptimizationLevel.ORT_DISABLE_ALL,
    "basic": ort.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    "extended": ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
    "all": ort.GraphOptimizationLevel.ORT_ENABLE_ALL,
}
_CLASH = "Attempt to replace the existing tensor"
"""What ONNX Runtime 1.31 says of some transformers under `session.x64quantprecision`, whose
tensors it then makes unsigned under one name twice."""
_TENSORRT_FLAGS = {
    "fp16": ("trt_fp16_enable",),
    "bf16": ("trt_bf16_enable",),
    "int8": ("trt_int8_enable",),
}

# The classes that ONNX Runtime raises share no base below Exception.
_ORT_ERRORS = (
    state.EngineError, state.EPFail, state.Fail, state.InvalidArgument, state.InvalidGraph,
    state.InvalidProtobuf, state.ModelLoaded, state.ModelRequiresCompilation, state.NoModel,
    state.NoSuchFile, state.NotFound, state.NotImplemented, state.RuntimeException,
)  # fmt: skip

_DATATYPES = {
    "bool": "BOOL", "uint8": "UINT8", "uint16": "UINT16", "uint32": "UINT32", "uint64": "UINT64",
    "int8": "INT8", "int16": "INT16", "int32": "INT32", "int64": "INT64",
    "float16": "FP16", "float": "FP32", "double": "FP64", "string": "BYTES",
}  # fmt: skip


class OnnxRuntimeSession:
    """A model loaded by ONNX Runtime; satisfies `edgectl.engine.session.Session`."""

    def __init__(self, session: ort.InferenceSession) -> None:
        self._session: ort.InferenceSession | None = session
        self.engine = f"onnxruntime {ort.__version__}"
        self.providers = tuple(session.get_providers())
        self.inputs = tuple(_spec(node) for node in session.get_inputs())
        self.outputs = tuple(_spec(node) for node in session.get_outputs())
        self._output_names = [spec.name for spec in self.outputs]

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Infer; see `Session.run`."""
        session = self._session
        if session is None:
            raise EngineError("the model is closed")
        checked = check_inputs(self.inputs, inputs)
        try:
            outputs = session.run(self._output_names, checked)
        except state.InvalidArgument as error:
            raise InputError(f"the model does not take this input: {_text(error)}") from error
        except _ORT_ERRORS as error:
            raise EngineError(f"the model failed to run: {_text(error)}") from error
        return dict(zip(self._output_names, outputs, strict=True))

    def close(self) -> None:
        """Free the model; a `run` in progress keeps it until it is done."""
        self._session = None
        _return_free_memory()


def load(path: Path, *, options: EngineOptions, threads: int) -> OnnxRuntimeSession:
    """Load an ONNX file; see `edgectl.engine.session.load_session`."""
    chosen = _choose(options.providers)
    providers = [(name, provider_options(name, options)) for name in chosen]
    try:
        session = _session(path, providers, options.extra, threads)
    except (*_ORT_ERRORS, ValueError, RuntimeError) as error:
        _raise_load_error(path, error)
    _return_free_memory()
    return OnnxRuntimeSession(session)


def _session(
    path: Path, providers: list[tuple[str, dict[str, str]]], extra: Mapping[str, Any], threads: int
) -> ort.InferenceSession:
    try:
        return ort.InferenceSession(
            str(path),
            _options(threads, extra),
            providers=providers,
            enable_fallback=False,  # It prints, and then answers from another provider unasked.
        )
    except _ORT_ERRORS as error:
        again = _elsewhere(extra) and extra.get("optimizations", "all") in ("all", "extended")
        if not again or _CLASH not in str(error):
            raise
        # Without the kernels for bytes, sums are in float, which saturate as little.
        return _session(path, providers, {**extra, "optimizations": "basic"}, threads)


def _elsewhere(extra: Mapping[str, Any]) -> bool:
    """Whether the answers of another architecture's device are wanted."""
    return bool(extra.get("architecture", "amd64") != "amd64")


def _choose(requested: Sequence[str]) -> list[str]:
    available = ort.get_available_providers()
    chosen = [name for name in dict.fromkeys(requested) if name in available]
    absent = [name for name in requested if name not in available]
    if not chosen or (absent and _CPU not in chosen):
        wanted = ", ".join(absent) or "none"
        raise UnsupportedError(
            f"execution provider not available here: {wanted} (available: {', '.join(available)})"
        )
    return chosen


def provider_options(provider: str, options: EngineOptions) -> dict[str, str]:
    """What an execution provider is told beside its name.

    TensorRT's keeps its engines and measured kernels in `options.cache`; of `options.extra` it
    takes `workspace` (bytes) and `precision`, since it reads QuantizeLinear and fp16 only if it is
    told to. CUDA's takes `gpuMemory`, the most bytes of its arena.
    """
    said: dict[str, str] = {}
    extra = options.extra
    if provider == "TensorrtExecutionProvider":
        precision = str(extra.get("precision", ""))
        said |= dict.fromkeys(_TENSORRT_FLAGS.get(precision, ()), "1")
        if extra.get("workspace"):
            said["trt_max_workspace_size"] = str(extra["workspace"])
        if options.device.startswith("DLA"):
            core = options.device.partition(":")[2] or "0"
            said |= {"trt_dla_enable": "1", "trt_dla_core": core}
        if options.cache is not None:
            cache = str(options.cache)
            said |= {"trt_engine_cache_enable": "1", "trt_engine_cache_path": cache,
                     "trt_timing_cache_enable": "1", "trt_timing_cache_path": cache}  # fmt: skip
    elif provider == "CUDAExecutionProvider":
        # The arena would double at each step, on a Jetson out of the memory that all share.
        said["arena_extend_strategy"] = "kSameAsRequested"
        if extra.get("gpuMemory"):
            said["gpu_mem_limit"] = str(extra["gpuMemory"])
    return said


def _options(threads: int, extra: Mapping[str, Any]) -> ort.SessionOptions:
    """Options for a small device.

    Measured with a 16.8 MB MobileNet-shaped fp32 model at 224x224 (x86-64, one thread, glibc; the
    latency was the same throughout): defaults keep 117 MB resident. Freeing the loader's garbage
    (`_return_free_memory`) makes it 92 MB, and doing without memory patterns, which plan one more
    block for the whole run, 85 MB. Without the arena it is more, and
    differs from run to run (98 to 139 MB), because glibc fragments on large buffers that come and
    go. `tests/bench/engine_memory.py` measures anew.
    """
    options = ort.SessionOptions()
    optimizations = str(extra.get("optimizations", "all"))
    try:
        options.graph_optimization_level = _LEVELS[optimizations]
    except KeyError:
        raise EngineError(
            f"optimizations {optimizations!r} is not one of: {', '.join(_LEVELS)}"
        ) from None
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.enable_cpu_mem_arena = True
    options.enable_mem_pattern = False
    # Threads that wait for work would otherwise burn a core: heat and battery on a device.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if _elsewhere(extra):
        # An x86 without VNNI sums products of bytes in 16 bits, which saturate; an Arm's do not.
        options.add_session_config_entry("session.x64quantprecision", "1")
    # Every error is raised as an exception; ORT would also write it to stderr.
    options.log_severity_level = _FATAL_ONLY
    return options


def _return_free_memory() -> None:
    """Hand freed heap pages back: loading leaves up to twice the model's size unused in glibc."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def _spec(node: ort.NodeArg) -> TensorSpec:
    element = re.fullmatch(r"tensor\((\w+)\)", node.type)
    datatype = _DATATYPES.get(element.group(1)) if element else None
    if datatype is None:
        raise UnsupportedError(
            f"tensor {node.name!r} is a {node.type}, which the Open Inference Protocol cannot say"
        )
    shape = tuple(size if isinstance(size, int) else -1 for size in node.shape)
    return TensorSpec(node.name, datatype, shape)


# How ONNX Runtime 1.2x names what it lacks, tried in order; each has `operator`, some have `node`.
_LACKS = (
    re.compile(
        r'In Node, \("(?P<node>[^"]*)", (?P<operator>\w+),.*No Op registered for', re.DOTALL
    ),
    re.compile(r"(?P<operator>[\w.]+:\w+)\(-?\d+\) is not a registered function/op"),
    re.compile(
        r"Could not find an implementation for (?P<operator>\w+)\(\d+\) node with name "
        r"'(?P<node>[^']*)'"
    ),
    re.compile(r"of operator \((?P<operator>\w+)\) in node \((?P<node>[^)]*)\) is invalid"),
)


def _raise_load_error(path: Path, error: Exception) -> NoReturn:
    text = _text(error)
    for pattern in _LACKS:
        if match := pattern.search(text):
            operator, node = match["operator"], match.groupdict().get("node")
            at = f" (node {node!r})" if node else ""
            raise UnsupportedError(
                f"{path.name}: ONNX Runtime {ort.__version__} cannot run operator {operator}{at}: "
                f"{text}",
                operator=operator,
                node=node or None,
            ) from error
    if isinstance(error, state.NoSuchFile):
        raise EngineError(f"model file {path} does not exist") from error
    if isinstance(error, state.InvalidProtobuf) or "No graph was found" in text:
        raise EngineError(f"{path} is not an ONNX model, or is cut short: {text}") from error
    raise EngineError(f"{path} does not load in ONNX Runtime {ort.__version__}: {text}") from error


def _text(error: Exception) -> str:
    """ORT's message without its prefixes and C++ source positions, on one line."""
    text = re.sub(r"^\[ONNXRuntimeError\] : \d+ : \w+ : (Load model from .*? failed:\s*)?", "",
                  str(error), flags=re.DOTALL)  # fmt: skip
    text = re.sub(r"/onnxruntime_src/\S+:\d+ .*?\)\s(?=[A-Z\w])", "", text, flags=re.DOTALL)
    return " ".join(text.split())
