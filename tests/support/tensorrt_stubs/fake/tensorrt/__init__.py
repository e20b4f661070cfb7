"""A stand-in for the vendor's `tensorrt`, of which only the binding test knows the real one.

An "engine" is the ONNX model itself behind the vendor's magic, and ONNX Runtime on the CPU runs it
on the addresses that it is given. The names and arguments are those of the real package, which
`tests/builders/test_tensorrt.py` checks. The environment changes what it is: FAKE_TRT_VERSION
(10.3.0), FAKE_TRT_DLA (cores), FAKE_TRT_STEPS and FAKE_TRT_STEP_SECONDS (of a build),
FAKE_TRT_REFUSES (an operator).
"""

from __future__ import annotations

import ctypes
import enum
import json
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from google.protobuf.message import DecodeError

__version__ = os.environ.get("FAKE_TRT_VERSION", "10.3.0")
_MAJOR = int(__version__.partition(".")[0])


class ErrorCode(enum.Enum):
    SUCCESS = 0
    MODEL_DESERIALIZE_FAILED = 3
    UNSUPPORTED_NODE = 8
    UNSUPPORTED_GRAPH = 7
    UNSUPPORTED_NODE_ATTR = 9
    UNSUPPORTED_NODE_INPUT = 10
    UNSUPPORTED_NODE_DATATYPE = 11
    UNSUPPORTED_NODE_DYNAMIC = 12
    UNSUPPORTED_NODE_SHAPE = 13


class DataType(enum.Enum):
    FLOAT = 0
    HALF = 1
    INT8 = 2
    INT32 = 3
    BOOL = 4
    UINT8 = 5
    BF16 = 7
    INT64 = 8


class TensorIOMode(enum.Enum):
    NONE = 0
    INPUT = 1
    OUTPUT = 2


class NetworkDefinitionCreationFlag(enum.IntEnum):
    EXPLICIT_BATCH = 0
    STRONGLY_TYPED = 1


BuilderFlag = enum.Enum(
    "BuilderFlag", ["GPU_FALLBACK", "TF32", *(["FP16", "INT8"] if _MAJOR < 11 else [])]
)
HardwareCompatibilityLevel = enum.Enum(
    "HardwareCompatibilityLevel",
    ["NONE", "AMPERE_PLUS", *(["SAME_COMPUTE_CAPABILITY"] if __version__ != "10.3.0" else [])],
)


class MemoryPoolType(enum.Enum):
    WORKSPACE = 0


class DeviceType(enum.Enum):
    GPU = 0
    DLA = 1


class ILogger:
    class Severity(enum.Enum):
        INTERNAL_ERROR = 0
        ERROR = 1
        WARNING = 2
        INFO = 3
        VERBOSE = 4

    INTERNAL_ERROR, ERROR = Severity.INTERNAL_ERROR, Severity.ERROR

    def log(self, severity: Severity, msg: str) -> None:
        raise NotImplementedError


class IProgressMonitor:
    pass


class ParserError:
    def __init__(self, operator: str, name: str) -> None:
        self._operator, self._name = operator, name

    def code(self) -> ErrorCode:
        known = self._operator
        return ErrorCode.UNSUPPORTED_NODE if known else ErrorCode.MODEL_DESERIALIZE_FAILED

    def desc(self) -> str:
        return f"no importer\n for {self._operator}" if self._operator else "not a protobuf"

    def node_operator(self) -> str:
        return self._operator

    def node_name(self) -> str:
        return self._name


class _Tensor:
    def __init__(self, name: str, shape: tuple[int, ...]) -> None:
        self.name, self.shape = name, shape


class _Network:
    def __init__(self, flags: int) -> None:
        self.flags = flags
        self.model = b""
        self._inputs: list[_Tensor] = []

    @property
    def num_inputs(self) -> int:
        return len(self._inputs)

    def get_input(self, index: int) -> _Tensor:
        return self._inputs[index]


INetworkDefinition = _Network


class OnnxParser:
    def __init__(self, network: _Network, logger: ILogger) -> None:
        self._network, self._errors = network, list[ParserError]()

    def parse_from_file(self, model: str) -> bool:
        data = Path(model).read_bytes()
        try:
            graph = onnx.load_model_from_string(data).graph
        except DecodeError:
            self._errors.append(ParserError("", ""))
            return False
        refused = os.environ.get("FAKE_TRT_REFUSES")
        self._errors += [ParserError(n.op_type, n.name) for n in graph.node if n.op_type == refused]
        self._network.model = data
        self._network._inputs = [
            _Tensor(v.name, tuple(d.dim_value or -1 for d in v.type.tensor_type.shape.dim))
            for v in graph.input
        ]
        return not self._errors

    @property
    def num_errors(self) -> int:
        return len(self._errors)

    def get_error(self, index: int) -> ParserError:
        return self._errors[index]


class _Profile:
    def __init__(self) -> None:
        self.shapes: dict[str, list[tuple[int, ...]]] = {}

    def set_shape(self, input: str, min: Any, opt: Any, max: Any) -> None:  # noqa: A002
        self.shapes[input] = [min, opt, max]


class _Cache:
    def __init__(self, data: bytes) -> None:
        self.data = data

    def serialize(self) -> bytes:
        return self.data


class IBuilderConfig:
    def __init__(self) -> None:
        self.builder_optimization_level = 3
        self.progress_monitor: Any = None
        self.hardware_compatibility_level = None
        self.default_device_type = DeviceType.GPU
        self.DLA_core = -1
        self.said: dict[str, Any] = {"flags": []}
        self.profile: _Profile | None = None
        self._timing: _Cache | None = None

    def set_memory_pool_limit(self, pool: MemoryPoolType, pool_size: int) -> None:
        self.said["workspace"] = pool_size

    def set_flag(self, flag: Any) -> None:
        self.said["flags"].append(flag.name)

    def add_optimization_profile(self, profile: _Profile) -> int:
        self.profile = profile
        return 0

    def create_timing_cache(self, serialized_timing_cache: bytes) -> _Cache | None:
        return _Cache(serialized_timing_cache)

    def set_timing_cache(self, cache: _Cache, ignore_mismatch: bool) -> bool:
        """Refuses a cache of another version, as the real one does."""
        fits = cache.data in {b"", f"timed by {__version__}".encode()}
        if fits:
            self.said["timed"] = bool(cache.data)
            self._timing = _Cache(f"timed by {__version__}".encode())
        return fits

    def get_timing_cache(self) -> _Cache | None:
        return self._timing


class Builder:
    def __init__(self, logger: ILogger) -> None:
        self.num_DLA_cores = int(os.environ.get("FAKE_TRT_DLA", "0"))
        self._logger = logger

    def create_builder_config(self) -> IBuilderConfig:
        return IBuilderConfig()

    def create_network(self, flags: int = 0) -> _Network:
        return _Network(flags)

    def create_optimization_profile(self) -> _Profile:
        return _Profile()

    def build_serialized_network(self, network: _Network, config: IBuilderConfig) -> bytes | None:
        if any(-1 in tensor.shape for tensor in network._inputs) and config.profile is None:
            self._logger.log(ILogger.ERROR, "Network has dynamic or shape inputs, but no profile")
            return None
        if not _steps(config.progress_monitor):
            return None
        said = config.said | {
            "flags": sorted(config.said["flags"]),
            "network": network.flags,
            "level": config.builder_optimization_level,
            "dla": config.DLA_core,
            "device": config.default_device_type.name,
            "shapes": config.profile.shapes if config.profile else {},
            "version": __version__,
        }
        header = json.dumps(said).encode()
        return b"ftrt" + len(header).to_bytes(4, "big") + header + network.model


def _steps(monitor: Any) -> bool:
    """Two levels of phases, the inner one within the first step of the outer."""
    steps = int(os.environ.get("FAKE_TRT_STEPS", "2"))
    monitor.phase_start("Building engine", None, 2)
    monitor.phase_start("Timing kernels", "Building engine", steps)
    for step in range(steps):
        time.sleep(float(os.environ.get("FAKE_TRT_STEP_SECONDS", "0")))
        if not monitor.step_complete("Timing kernels", step):
            return False
    monitor.phase_finish("Timing kernels")
    done = all(monitor.step_complete("Building engine", step) for step in range(2))
    monitor.phase_finish("Building engine")
    return done


_TYPES = {
    "tensor(float)": DataType.FLOAT,
    "tensor(float16)": DataType.HALF,
    "tensor(int8)": DataType.INT8,
    "tensor(int64)": DataType.INT64,
    "tensor(bfloat16)": DataType.BF16,
}
_NUMPY = {DataType.FLOAT: np.float32, DataType.HALF: np.float16, DataType.INT64: np.int64}


class ICudaEngine:
    def __init__(self, said: dict[str, Any], model: bytes) -> None:
        self.said = said
        self._session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
        self._tensors = [(node, TensorIOMode.INPUT) for node in self._session.get_inputs()]
        self._tensors += [(node, TensorIOMode.OUTPUT) for node in self._session.get_outputs()]
        self._nodes = {node.name: (node, mode) for node, mode in self._tensors}

    @property
    def num_io_tensors(self) -> int:
        return len(self._tensors)

    def get_tensor_name(self, index: int) -> str:
        return str(self._tensors[index][0].name)

    def get_tensor_mode(self, name: str) -> TensorIOMode:
        return self._nodes[name][1]

    def get_tensor_dtype(self, name: str) -> DataType:
        return _TYPES[self._nodes[name][0].type]

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return tuple(d if isinstance(d, int) else -1 for d in self._nodes[name][0].shape)

    def get_tensor_profile_shape(self, name: str, profile_index: int) -> list[tuple[int, ...]]:
        return [tuple(shape) for shape in self.said["shapes"][name]]

    def create_execution_context(self) -> IExecutionContext:
        return IExecutionContext(self)


class IExecutionContext:
    def __init__(self, engine: ICudaEngine) -> None:
        self._engine = engine
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._addresses: dict[str, int] = {}

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        limits = self._engine.said["shapes"].get(name)
        if limits and not limits[0][0] <= shape[0] <= limits[2][0]:
            return False
        self._shapes[name] = shape
        return True

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        declared = self._engine.get_tensor_shape(name)
        batch = next(iter(self._shapes.values()))[0]
        return tuple(batch if at == 0 and d == -1 else d for at, d in enumerate(declared))

    def set_tensor_address(self, name: str, memory: int) -> bool:
        self._addresses[name] = memory
        return True

    def execute_async_v3(self, stream_handle: int) -> bool:
        engine = self._engine
        inputs = {name: self._view(name, shape) for name, shape in self._shapes.items()}
        names = [n for n, (_, mode) in engine._nodes.items() if mode is TensorIOMode.OUTPUT]
        for name, value in zip(names, engine._session.run(names, inputs), strict=True):
            self._view(name, value.shape)[...] = value
        return stream_handle != 0

    def _view(self, name: str, shape: tuple[int, ...]) -> Any:
        dtype = np.dtype(_NUMPY[self._engine.get_tensor_dtype(name)])
        size = int(np.prod(shape)) * dtype.itemsize
        memory = (ctypes.c_char * size).from_address(self._addresses[name])
        return np.frombuffer(memory, dtype).reshape(shape)


class Runtime:
    def __init__(self, logger: ILogger) -> None:
        self._logger = logger
        self.DLA_core = -1

    def deserialize_cuda_engine(self, serialized_engine: bytes) -> ICudaEngine | None:
        data = bytes(serialized_engine)
        size = int.from_bytes(data[4:8], "big")
        try:
            said = json.loads(data[8 : 8 + size])
        except ValueError:
            said = {"version": None}
        if not data.startswith(b"ftrt") or said["version"] != __version__:
            self._logger.log(ILogger.ERROR, "Serialization assertion failed: version tag")
            return None
        return ICudaEngine(said, data[8 + size :])
