"""Building a TensorRT engine from an ONNX model and its recipe, on the machine that runs it.

For TensorRT 10 and 11. Where they differ, 11 has less: no flags that lower the precision of a
network without types of its own ("Migrating from TensorRT 10.x to 11.x"). Every name that is used
here is checked against the vendor's own bindings (tests/builders/test_tensorrt.py).
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, NoReturn

import tensorrt as trt

from edgectl.engine.compiled import keep_only, write_entry
from edgectl.engine.errors import EngineError, EngineUnavailableError, UnsupportedError
from edgectl.engine.recipe import version_numbers

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from edgectl.engine.recipe import Batch, Recipe

    Report = Callable[[float, str], bool]
    """Told how far the work is (0 to 1) and with what; answers whether to go on."""

MAX_TIMING_BYTES = 64 << 20

WEAK_FLAGS = {"fp16": "FP16"}
"""What a network without types of its own needs to run in fp16: flags of `BuilderFlag` that 11
does not have, where such networks do not exist."""
COMPATIBILITY = {
    "ampere-plus": "AMPERE_PLUS",
    "same-compute-capability": "SAME_COMPUTE_CAPABILITY",  # not in 10.3
}
_UNSUPPORTED = (
    trt.ErrorCode.UNSUPPORTED_GRAPH,
    trt.ErrorCode.UNSUPPORTED_NODE,
    trt.ErrorCode.UNSUPPORTED_NODE_ATTR,
    trt.ErrorCode.UNSUPPORTED_NODE_DATATYPE,
    trt.ErrorCode.UNSUPPORTED_NODE_DYNAMIC,
    trt.ErrorCode.UNSUPPORTED_NODE_INPUT,
    trt.ErrorCode.UNSUPPORTED_NODE_SHAPE,
)
_KEPT_ERRORS = 5


class Log(trt.ILogger):  # type: ignore[misc]
    """Keeps what TensorRT calls an error: its functions return nothing where they fail."""

    def __init__(self) -> None:
        trt.ILogger.__init__(self)
        self.errors: deque[str] = deque(maxlen=_KEPT_ERRORS)  # a server keeps it for months

    def log(self, severity: trt.ILogger.Severity, msg: str) -> None:
        """Called by TensorRT, from several threads."""
        if severity in (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR):
            self.errors.append(" ".join(msg.split()))

    def said(self) -> str:
        """The last errors, as one sentence."""
        return "; ".join(self.errors) or "it does not say why"


class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
    """Turns TensorRT's nested phases into one fraction that only grows."""

    def __init__(self, report: Report) -> None:
        trt.IProgressMonitor.__init__(self)
        self._report = report
        self._open: dict[str, tuple[str | None, int, int]] = {}
        self._told = 0.0
        self.is_cancelled = False

    def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
        """Called by TensorRT: `num_steps` steps begin, as a part of the parent's current one."""
        self._open[phase_name] = (parent_phase, num_steps, 0)

    def step_complete(self, phase_name: str, step: int) -> bool:
        """Called by TensorRT: a step is done. False ends the build."""
        if phase_name in self._open:
            parent, steps, _ = self._open[phase_name]
            self._open[phase_name] = (parent, steps, min(step + 1, steps))
        self._told = max(self._told, self._fraction(phase_name))
        if not self._report(self._told, phase_name):
            self.is_cancelled = True
        return not self.is_cancelled

    def phase_finish(self, phase_name: str) -> None:
        """Called by TensorRT: a phase is over, done or not."""
        self._open.pop(phase_name, None)

    def _fraction(self, phase: str) -> float:
        fraction = 0.0
        seen: set[str] = set()
        name: str | None = phase
        while name in self._open and name not in seen:
            seen.add(name)
            name_, steps, done = self._open[name]
            fraction = min((done + fraction) / max(steps, 1), 1.0)
            name = name_
        return fraction


def build(model: Path, recipe: Recipe, timing: Path | None, report: Report) -> memoryview:
    """Build an engine for this machine's GPU; returns it serialised.

    `timing` is the file of measured kernels, read and written. Raises UnsupportedError for what
    TensorRT does not take (with operator and node), EngineUnavailableError for hardware that is
    not here, EngineError for a build that fails.
    """
    _require_version(recipe)
    log = Log()
    builder = _builder(log)
    config = builder.create_builder_config()
    _configure(config, builder, recipe)
    network = builder.create_network(_network_flags(recipe))
    parser = trt.OnnxParser(network, log)
    report(0.0, "reading the model")
    if not parser.parse_from_file(str(model)):
        _raise_parse_error(model, parser, log)
    if recipe.batch is not None:
        _add_profile(builder, network, config, recipe.batch)
    if timing is not None and recipe.timing_cache:
        _load_timing(config, timing)
    monitor = Monitor(report)
    config.progress_monitor = monitor
    plan = builder.build_serialized_network(network, config)
    if monitor.is_cancelled:
        raise EngineError(f"building the engine of {model.name} was cancelled")
    if plan is None:
        raise EngineError(
            f"TensorRT {trt.__version__} builds no engine of {model.name}: {log.said()}"
        )
    if timing is not None and recipe.timing_cache:
        _save_timing(config, timing)
    return memoryview(plan)


def _builder(log: Log) -> trt.Builder:
    try:
        return trt.Builder(log)
    except (TypeError, RuntimeError) as error:
        raise EngineUnavailableError(
            f"TensorRT {trt.__version__} does not start on this machine: {log.said()}"
        ) from error


def _require_version(recipe: Recipe) -> None:
    if version_numbers(trt.__version__) < version_numbers(recipe.minimum_version):
        raise UnsupportedError(
            f"the model has operators that TensorRT reads from {recipe.minimum_version} on; this "
            f"machine has {trt.__version__}"
        )


def is_always_typed() -> bool:
    """Whether this TensorRT takes every network as strongly typed (11 and later)."""
    return not hasattr(trt.BuilderFlag, WEAK_FLAGS["fp16"])


def _network_flags(recipe: Recipe) -> int:
    if not recipe.strongly_typed or is_always_typed():
        return 0
    return 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)


def _configure(config: trt.IBuilderConfig, builder: trt.Builder, recipe: Recipe) -> None:
    config.builder_optimization_level = recipe.optimization_level
    if recipe.workspace is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, recipe.workspace)
    if recipe.hardware_compatibility != "none":
        config.hardware_compatibility_level = _compatibility(recipe.hardware_compatibility)
    weak = WEAK_FLAGS.get(recipe.precision)
    if weak is not None and not recipe.strongly_typed and not is_always_typed():
        config.set_flag(getattr(trt.BuilderFlag, weak))
    if recipe.dla is not None:
        if builder.num_DLA_cores <= recipe.dla.core:
            raise EngineUnavailableError(
                f"the model is for DLA core {recipe.dla.core}; TensorRT {trt.__version__} finds "
                f"{builder.num_DLA_cores} on this machine"
            )
        config.default_device_type = trt.DeviceType.DLA
        config.DLA_core = recipe.dla.core
        if recipe.dla.gpu_fallback:
            config.set_flag(trt.BuilderFlag.GPU_FALLBACK)


def _compatibility(level: str) -> trt.HardwareCompatibilityLevel:
    found = getattr(trt.HardwareCompatibilityLevel, COMPATIBILITY[level], None)
    if found is None:
        raise UnsupportedError(
            f"TensorRT {trt.__version__} has no hardware compatibility level {level}"
        )
    return found


def _add_profile(
    builder: trt.Builder, network: trt.INetworkDefinition, config: trt.IBuilderConfig, batch: Batch
) -> None:
    """One profile: the first dimension of every input that leaves it open."""
    profile = builder.create_optimization_profile()
    sizes = (batch.minimum, batch.optimum, batch.maximum)
    for index in range(network.num_inputs):
        tensor = network.get_input(index)
        shape = tuple(tensor.shape)
        if -1 not in shape:
            continue
        if -1 in shape[1:]:
            raise UnsupportedError(
                f"input {tensor.name!r} of shape {list(shape)} leaves more than its batch open"
            )
        profile.set_shape(tensor.name, *((size, *shape[1:]) for size in sizes))
    config.add_optimization_profile(profile)


def _load_timing(config: trt.IBuilderConfig, path: Path) -> None:
    """Measured kernels of earlier builds; those of another GPU or TensorRT are started anew."""
    try:
        data = path.read_bytes() if path.stat().st_size <= MAX_TIMING_BYTES else b""
    except OSError:
        data = b""  # the first build on this machine
    for known in (data, b""):
        cache = config.create_timing_cache(known)
        if cache is not None and config.set_timing_cache(cache, ignore_mismatch=False):
            return


def _save_timing(config: trt.IBuilderConfig, path: Path) -> None:
    cache = config.get_timing_cache()
    if cache is not None:
        write_entry(path, cache.serialize())
        keep_only(path)


def _raise_parse_error(model: Path, parser: trt.OnnxParser, log: Log) -> NoReturn:
    """Everything that the parser lists, and the first node that it does not take."""
    errors = [parser.get_error(index) for index in range(parser.num_errors)]
    if not errors:
        raise EngineError(f"TensorRT does not read {model.name}: {log.said()}")
    text = "; ".join(dict.fromkeys(" ".join(error.desc().split()) for error in errors))
    first: trt.ParserError | None = next(
        (error for error in errors if error.code() in _UNSUPPORTED), None
    )
    if first is None:
        raise EngineError(f"TensorRT {trt.__version__} does not read {model.name}: {text}")
    operator, node = first.node_operator(), first.node_name()
    raise UnsupportedError(
        f"{model.name}: TensorRT {trt.__version__} does not take operator {operator} "
        f"(node {node!r}): {text}",
        operator=operator or None,
        node=node or None,
    )
