"""One loaded model answering requests: checks, pre-processing, engine, post-processing."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from edgectl.engine import transforms
from edgectl.engine.errors import EngineError, InputError
from edgectl.engine.golden import check_golden
from edgectl.engine.modeldir import ModelDirectory
from edgectl.engine.tensors import numpy_dtype, shape_matches
from edgectl.engine.transforms.scores import TopK
from edgectl.serve.protocol import OutputTensor, RequestedOutput

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from edgectl.engine.session import Session
    from edgectl.engine.signature import ModelSignature, TensorSpec
    from edgectl.serve.codec import Array
    from edgectl.serve.protocol import InferRequest, InputTensor


@dataclass(frozen=True, slots=True)
class Limits:
    """How large a request may become inside the server."""

    batch: int = 256
    """Largest size of a dimension that the model leaves open at the front: what a model needs
    while it runs grows with it, far beyond the size of the request."""
    tensor_bytes: int = 32 << 20
    """Largest tensor made from encoded images: no more than could have been sent as a tensor."""
    pixels: int = 1 << 25
    """Most pixels that the images of one batch have together, which is what `decode` allows a
    single one: a few megabytes can hold hundreds of such, and a minute of everybody's time."""


class ServedModel:
    """A model directory loaded for serving; safe to use from several threads at once."""

    def __init__(self, signature: ModelSignature, session: Session, limits: Limits) -> None:
        self.signature = signature
        self.name = signature.name
        self.version = signature.version
        self._session = session
        self._limits = limits
        self._inputs = {spec.name: spec for spec in signature.inputs}
        self._outputs = {spec.name: spec for spec in signature.outputs}
        self._row_seconds = math.inf

    @classmethod
    def load(cls, path: Path, *, threads: int, limits: Limits) -> ServedModel:
        """Load a model directory and run its golden inputs, so that no request pays for what an
        engine puts off until it first runs. Raises EngineError, also if the outputs are wrong."""
        directory = ModelDirectory.open(path)
        signature = directory.signature
        session = directory.load(threads=threads)
        if directory.golden_file is not None:
            problems = check_golden(session, directory.golden_file, signature.golden_tolerance)
            if problems:
                raise EngineError(f"{path}: golden outputs differ: {'; '.join(problems)}")
        return cls(signature, session, limits)

    def expected_seconds(self, request: InferRequest) -> float:
        """How long the engine should take for a request of plain tensors, from the slowest of its
        recent runs; infinite if that is not known, or images have to be decoded first."""
        if any(tensor.datatype == "BYTES" for tensor in request.inputs):
            return math.inf
        return _rows(request) * self._row_seconds

    def infer(self, request: InferRequest) -> tuple[list[OutputTensor], float]:
        """Answer a request; also says how many seconds the engine alone took.

        Raises InputError for what is wrong with the request and EngineError if the engine fails.
        """
        requested = request.outputs or tuple(
            RequestedOutput(name, request.binary_output) for name in self._outputs
        )
        for output in requested:
            self._check_output(output)
        inputs = {tensor.name: self._read(tensor) for tensor in request.inputs}
        started = time.perf_counter()
        results = self._session.run(inputs)
        seconds = time.perf_counter() - started
        self._learn(seconds / _rows(request))
        return [self._answer(output, results) for output in requested], seconds

    def _learn(self, row_seconds: float) -> None:
        """Keep a maximum that slowly forgets; threads may race here, as any of their values do."""
        known = self._row_seconds
        self._row_seconds = row_seconds if known == math.inf else max(row_seconds, 0.9 * known)

    def _read(self, tensor: InputTensor) -> Array:
        spec = self._inputs.get(tensor.name)
        if spec is None:
            raise InputError(
                f"unknown input {tensor.name!r}; the model takes {_listed(self._inputs)}"
            )
        if tensor.datatype == "BYTES" and transforms.accepts_encoded(spec):
            return self._read_images(spec, tensor)
        if tensor.datatype != spec.datatype:
            encoded = " (or encoded images as BYTES)" if transforms.accepts_encoded(spec) else ""
            raise InputError(
                f"input {spec.name!r} is {tensor.datatype},"
                f" but the model takes {spec.datatype}{encoded}"
            )
        if not shape_matches(tensor.shape, spec.shape):
            raise InputError(
                f"input {spec.name!r} has shape {list(tensor.shape)}, but the model takes"
                f" {list(spec.shape)}{' (-1 is any size)' if -1 in spec.shape else ''}"
            )
        if 0 in tensor.shape:
            raise InputError(f"input {spec.name!r} of shape {list(tensor.shape)} is empty")
        if spec.shape[:1] == (-1,):
            self._check_batch(spec, tensor.shape[0])
        array = tensor.decode()
        return _text(array, spec.name) if spec.datatype == "BYTES" else array

    def _read_images(self, spec: TensorSpec, tensor: InputTensor) -> Array:
        """Encoded images, each one element whatever the shape, to one batch."""
        count = math.prod(tensor.shape)
        if count < 1:
            raise InputError(f"input {spec.name!r} of shape {list(tensor.shape)} is empty")
        self._check_batch(spec, count)
        if spec.shape[0] not in (-1, count):
            raise InputError(f"input {spec.name!r} takes {spec.shape[0]} images, not {count}")
        known = math.prod(size for size in spec.shape[1:] if size > 0)
        if count * known * numpy_dtype(spec.datatype).itemsize > self._limits.tensor_bytes:
            raise InputError(
                f"input {spec.name!r}: {count} images make a tensor over the limit of"
                f" {self._limits.tensor_bytes} bytes; send fewer in one request"
            )
        encoded = list(tensor.decode().ravel())
        if count > 1 and sum(map(transforms.pixel_count, encoded)) > self._limits.pixels:
            raise InputError(
                f"input {spec.name!r}: the {count} images have more than {self._limits.pixels}"
                " pixels together; send fewer in one request"
            )
        images = [transforms.preprocess(spec, image) for image in encoded]
        if len({image.shape for image in images}) > 1:
            raise InputError(f"input {spec.name!r}: images of different sizes cannot share a batch")
        return images[0] if count == 1 else np.concatenate(images)

    def _check_batch(self, spec: TensorSpec, size: int) -> None:
        if size > self._limits.batch:
            raise InputError(
                f"input {spec.name!r}: a batch of {size} is over the limit of {self._limits.batch}"
            )

    def _check_output(self, output: RequestedOutput) -> None:
        spec = self._outputs.get(output.name)
        if spec is None:
            raise InputError(
                f"unknown output {output.name!r}; the model gives {_listed(self._outputs)}"
            )
        if output.classification and (spec.datatype == "BYTES" or len(spec.shape) < 2):
            raise InputError(f"output {output.name!r} has no classes to choose from")

    def _answer(self, output: RequestedOutput, results: Mapping[str, Array]) -> OutputTensor:
        spec, array = self._outputs[output.name], results[output.name]
        if output.classification:
            best = TopK(output.classification).apply(transforms.scores(spec, array), spec.labels)
            array = best.to_bytes_tensor()
        elif output.postprocess:
            processed = transforms.postprocess(spec, array)
            array = processed if isinstance(processed, np.ndarray) else processed.to_bytes_tensor()
        return OutputTensor(output.name, array, output.binary)


def _rows(request: InferRequest) -> int:
    """The batch of a request, where its inputs have one."""
    return max((tensor.shape[0] for tensor in request.inputs if tensor.shape), default=1)


def _text(array: Array, name: str) -> Array:
    """A BYTES tensor as engines take it: str elements."""
    texts: Array = np.empty(array.shape, dtype=object)
    try:
        for place, element in np.ndenumerate(array):
            texts[place] = element.decode()
    except UnicodeDecodeError as error:
        raise InputError(f"input {name!r} is not UTF-8 text") from error
    return texts


def _listed(names: Mapping[str, Any]) -> str:
    return ", ".join(repr(name) for name in names)
