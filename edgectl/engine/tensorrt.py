"""TensorRT 10 and 11 as an engine (https://docs.nvidia.com/deeplearning/tensorrt).

What lies in the model directory is an ONNX model with its recipe, and the engine is built here, for
this GPU, once: `EngineOptions.cache` keeps it. Or it is an engine already (`model.plan`), which
runs on what its recipe pins it to and nowhere else.
"""

from __future__ import annotations

import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorrt as trt

from edgectl.engine.compiled import entry_key, keep_only, model_digest, write_entry
from edgectl.engine.cuda import Buffer, Gpu, Stream
from edgectl.engine.errors import EngineError, InputError, UnsupportedError
from edgectl.engine.recipe import (
    PLAN_FILE,
    PLAN_MAGIC,
    RECIPE_FILE,
    Pins,
    Recipe,
    read_recipe,
    version_numbers,
)
from edgectl.engine.signature import TensorSpec
from edgectl.engine.tensorrt_build import Log, build
from edgectl.engine.tensors import check_inputs, numpy_dtype

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from edgectl.engine.options import EngineOptions
    from edgectl.engine.tensorrt_build import Report

_ENGINE = f"tensorrt {trt.__version__}"
_DATATYPES = {
    trt.DataType.FLOAT: "FP32",
    trt.DataType.HALF: "FP16",
    trt.DataType.INT8: "INT8",
    trt.DataType.UINT8: "UINT8",
    trt.DataType.INT32: "INT32",
    trt.DataType.INT64: "INT64",
    trt.DataType.BOOL: "BOOL",
}


class TensorRtSession:
    """A deserialised engine; satisfies `edgectl.engine.session.Session`."""

    def __init__(self, plan: bytes, gpu: Gpu, recipe: Recipe, name: str) -> None:
        """`name` is the file's, for errors; raises EngineError if it is no engine for this GPU."""
        self.engine = _ENGINE
        self.providers = ("gpu",) if recipe.dla is None else (f"dla:{recipe.dla.core}", "gpu")
        self._gpu = gpu
        self._log = Log()
        gpu.bind()
        self._runtime = trt.Runtime(self._log)
        if recipe.dla is not None:
            self._runtime.DLA_core = recipe.dla.core
        engine = self._runtime.deserialize_cuda_engine(plan)
        if engine is None:
            raise EngineError(f"{name} does not load in {_ENGINE}: {self._log.said()}")
        self._plan: trt.ICudaEngine | None = engine
        self.inputs, self.outputs = _specs(engine, name)
        self._most = _largest_batch(engine, self.inputs)
        self._context = engine.create_execution_context()
        if self._context is None:
            raise EngineError(f"{name} cannot run on this machine: {self._log.said()}")
        self._stream = Stream(gpu)
        self._buffers = {spec.name: Buffer(gpu) for spec in (*self.inputs, *self.outputs)}
        self._lock = threading.Lock()

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Infer; see `Session.run`. A batch over the largest of the engine is run in parts."""
        checked = check_inputs(self.inputs, inputs)
        rows = self._rows(checked)
        with self._lock:
            if self._plan is None:
                raise EngineError("the model is closed")
            self._gpu.bind()
            if self._most is None or rows <= self._most:
                return self._infer(checked)
            parts = [self._infer(self._part(checked, at)) for at in range(0, rows, self._most)]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def close(self) -> None:
        """Free the GPU's memory; waits for a `run` in progress."""
        with self._lock:
            if self._plan is None:
                return
            self._gpu.bind()
            self._stream.synchronize()
            for buffer in self._buffers.values():
                buffer.close()
            self._stream.close()
            # In the order that TensorRT asks for: contexts before their engine.
            self._context = None
            self._plan = None
            self._runtime = None
            self._gpu.close()

    def _rows(self, arrays: Mapping[str, NDArray[Any]]) -> int:
        rows = max(
            (len(arrays[spec.name]) for spec in self.inputs if spec.shape[:1] == (-1,)), default=1
        )
        if self._most is not None and rows > self._most:
            fixed = [spec.name for spec in self.outputs if spec.shape[:1] != (-1,)]
            if fixed:
                raise InputError(
                    f"a batch of {rows} is over the largest of this engine, {self._most}, and "
                    f"output {fixed[0]!r} has no batch to run it in parts"
                )
        return rows

    def _part(self, arrays: Mapping[str, NDArray[Any]], at: int) -> dict[str, NDArray[Any]]:
        most = self._most or 1
        return {
            spec.name: arrays[spec.name][at : at + most]
            if spec.shape[:1] == (-1,)
            else arrays[spec.name]
            for spec in self.inputs
        }

    def _infer(self, arrays: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        context, stream = self._context, self._stream
        for spec in self.inputs:
            array = arrays[spec.name]
            if not context.set_input_shape(spec.name, tuple(array.shape)):
                raise InputError(
                    f"the engine does not take input {spec.name!r} of shape {list(array.shape)}: "
                    f"{self._log.said()}"
                )
            buffer = self._buffers[spec.name]
            context.set_tensor_address(spec.name, buffer.reserve(array.nbytes))
            buffer.upload(array, stream)
        outputs = {}
        for spec in self.outputs:
            shape = tuple(context.get_tensor_shape(spec.name))
            if -1 in shape:
                raise UnsupportedError(
                    f"the shape of output {spec.name!r} depends on the data, which this adapter "
                    "does not take; leave such an operator (NonZero, NonMaxSuppression) to "
                    "spec.outputs.transforms of the Model"
                )
            outputs[spec.name] = np.empty(shape, numpy_dtype(spec.datatype))
            buffer = self._buffers[spec.name]
            context.set_tensor_address(spec.name, buffer.reserve(outputs[spec.name].nbytes))
        if not context.execute_async_v3(stream.handle):
            raise EngineError(f"the model failed to run: {self._log.said()}")
        for name, array in outputs.items():
            self._buffers[name].download(array, stream)
        stream.synchronize()
        return outputs


def load(
    path: Path,
    *,
    options: EngineOptions,
    threads: int,  # noqa: ARG001 - the protocol of adapters has it
) -> TensorRtSession:
    """Load an engine, building it first where the cache has none; see
    `edgectl.engine.session.load_session`. `threads` is nothing to a GPU."""
    recipe = read_recipe(path.with_name(RECIPE_FILE))
    gpu = Gpu()
    try:
        if path.name == PLAN_FILE:
            return TensorRtSession(_read_pinned(path, recipe.pins, gpu), gpu, recipe, path.name)
        entry = _entry(path, recipe, gpu, options)
        if entry is not None and entry.is_file():
            try:
                return TensorRtSession(entry.read_bytes(), gpu, recipe, entry.name)
            except EngineError:
                entry.unlink(missing_ok=True)  # of another driver, or damaged: build it again
        data = _build(path, recipe, gpu, options, lambda _fraction, _message: True)
        if entry is not None:
            with suppress(EngineError):  # a server may have no right to write there
                _keep(entry, data)
        return TensorRtSession(data, gpu, recipe, path.name)
    except BaseException:
        gpu.close()
        raise


def prepare(path: Path, *, options: EngineOptions, report: Report) -> bool:
    """Build the engine into the cache; False if it was there, or nothing has to be built.

    Raises as `load` does. `report` is told how far the work is; False from it ends the build.
    """
    recipe = read_recipe(path.with_name(RECIPE_FILE))
    gpu = Gpu()
    try:
        if path.name == PLAN_FILE:
            _read_pinned(path, recipe.pins, gpu)
            return False
        entry = _entry(path, recipe, gpu, options)
        if entry is None:
            raise EngineError("there is no cache to build the engine into")
        if entry.is_file():
            return False
        _keep(entry, _build(path, recipe, gpu, options, report))
        return True
    finally:
        gpu.close()


def _build(
    path: Path,
    recipe: Recipe,
    gpu: Gpu,
    options: EngineOptions,
    report: Report,
) -> bytes:
    if not path.is_file():
        raise EngineError(f"model file {path} does not exist")
    gpu.bind()
    timing = options.extra.get("timingCache")
    return bytes(build(path, recipe, _timing_file(timing, gpu), report))


def _keep(entry: Path, data: bytes) -> None:
    write_entry(entry, data)
    keep_only(entry)


def _timing_file(directory: Path | None, gpu: Gpu) -> Path | None:
    """Kernels are measured for one GPU and one TensorRT; others' would be refused."""
    if directory is None:
        return None
    return directory / f"tensorrt-{trt.__version__}-{gpu.compute_capability}.timing"


def _entry(path: Path, recipe: Recipe, gpu: Gpu, options: EngineOptions) -> Path | None:
    """Where the engine of this model, recipe, TensorRT and GPU is kept; None without a cache."""
    if options.cache is None:
        return None
    key = entry_key({
        "model": model_digest(path),
        "recipe": recipe.to_bytes().decode(),
        "tensorrt": str(trt.__version__),
        "computeCapability": gpu.compute_capability,
        "gpu": gpu.name,
    })  # fmt: skip
    return options.cache / f"{key}.plan"


def _read_pinned(plan: Path, pins: Pins | None, gpu: Gpu) -> bytes:
    """A ready engine, read only where it was made for: TensorRT does not promise to survive
    another version's."""
    if pins is None:
        raise EngineError(f"{plan} comes with a recipe that does not say what it runs on")
    wanted = version_numbers(pins.tensorrt)
    if version_numbers(trt.__version__)[: len(wanted)] != wanted:
        raise UnsupportedError(
            f"{plan.name} was made by TensorRT {pins.tensorrt}, this machine has {trt.__version__}"
        )
    if gpu.compute_capability != pins.compute_capability:
        raise UnsupportedError(
            f"{plan.name} is for GPUs of compute capability {pins.compute_capability}, this one "
            f"({gpu.name}) has {gpu.compute_capability}"
        )
    try:
        data = plan.read_bytes()
    except OSError as error:
        raise EngineError(f"cannot read the engine {plan}: {error.strerror}") from error
    if not data.startswith(PLAN_MAGIC):
        raise EngineError(f"{plan} is not a TensorRT engine")
    return data


def _specs(
    engine: trt.ICudaEngine, name: str
) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    inputs: list[TensorSpec] = []
    outputs: list[TensorSpec] = []
    for index in range(engine.num_io_tensors):
        tensor = engine.get_tensor_name(index)
        kind = engine.get_tensor_dtype(tensor)
        datatype = _DATATYPES.get(kind)
        if datatype is None:
            raise UnsupportedError(
                f"{name}: tensor {tensor!r} is a {kind}, which the Open Inference Protocol cannot "
                "say; cast it to FP32 in the model"
            )
        spec = TensorSpec(tensor, datatype, tuple(engine.get_tensor_shape(tensor)))
        is_input = engine.get_tensor_mode(tensor) == trt.TensorIOMode.INPUT
        (inputs if is_input else outputs).append(spec)
    return tuple(inputs), tuple(outputs)


def _largest_batch(engine: trt.ICudaEngine, inputs: tuple[TensorSpec, ...]) -> int | None:
    """The most rows that the engine was built for; None where its batch is fixed."""
    most = [
        int(engine.get_tensor_profile_shape(spec.name, 0)[-1][0])
        for spec in inputs
        if spec.shape[:1] == (-1,)
    ]
    return min(most) if most else None
