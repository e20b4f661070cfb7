"""One loaded model answering requests: checks, pre-processing, engine, post-processing."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING

from edgectl.engine import transforms
from edgectl.engine.errors import EngineError
from edgectl.engine.golden import check_golden
from edgectl.engine.modeldir import ModelDirectory
from edgectl.serve.answers import Answers
from edgectl.serve.inputs import InputReader, Limits
from edgectl.serve.protocol import RequestedOutput

if TYPE_CHECKING:
    from pathlib import Path

    from edgectl.engine.session import Session
    from edgectl.engine.signature import ModelSignature
    from edgectl.serve.protocol import InferRequest, OutputTensor

__all__ = ["Limits", "ServedModel"]


class ServedModel:
    """A model directory loaded for serving; safe to use from several threads at once."""

    def __init__(
        self,
        signature: ModelSignature,
        session: Session,
        limits: Limits,
        assets: Path | None = None,
    ) -> None:
        self.signature = signature
        self.name = signature.name
        self.version = signature.version
        self._session = session
        self._inputs = InputReader(signature.inputs, limits, assets)
        self._answers = Answers(signature)
        self._row_seconds = math.inf

    @classmethod
    def load(
        cls, path: Path, *, threads: int, limits: Limits, cache: Path | None = None
    ) -> ServedModel:
        """Load a model directory and run its golden inputs, so that no request pays for what an
        engine puts off until it first runs. `cache` holds what the engine compiled before.

        Raises EngineError, also if the outputs are wrong."""
        directory = ModelDirectory.open(path)
        signature = directory.signature
        try:
            transforms.check_together(signature.inputs, signature.outputs)
            transforms.load_assets(signature.inputs, path)
        except ValueError as error:
            raise EngineError(f"{path}: {error}") from error
        session = directory.load(threads=threads, cache=cache)
        if directory.golden_file is not None:
            problems = check_golden(session, directory.golden_file, signature.golden_tolerance)
            if problems:
                raise EngineError(f"{path}: golden outputs differ: {'; '.join(problems)}")
        return cls(signature, session, limits, path)

    def expected_seconds(self, request: InferRequest) -> float:
        """How long the engine should take for a request of plain tensors, from the slowest of its
        recent runs; infinite if that is not known, or there is more to do than to run the engine:
        encoded data, or boxes to be compared with each other."""
        if self._answers.detects or any(tensor.datatype == "BYTES" for tensor in request.inputs):
            return math.inf
        return _rows(request) * self._row_seconds

    def infer(self, request: InferRequest) -> tuple[list[OutputTensor], float]:
        """Answer a request; also says how many seconds the engine alone took.

        Raises InputError for what is wrong with the request and EngineError if the engine fails.
        """
        requested = request.outputs or tuple(
            RequestedOutput(spec.name, request.binary_output) for spec in self._answers.served
        )
        for output in requested:
            self._answers.check(output)
        inputs, geometries = self._inputs.read(request.inputs)
        started = time.perf_counter()
        results = self._session.run(inputs)
        seconds = time.perf_counter() - started
        self._learn(seconds / _rows(request))
        signature = self.signature
        run = transforms.Run(signature.inputs, signature.outputs, inputs, results, geometries)
        return self._answers.answer(requested, run), seconds

    def _learn(self, row_seconds: float) -> None:
        """Keep a maximum that slowly forgets; threads may race here, as any of their values do."""
        known = self._row_seconds
        self._row_seconds = row_seconds if known == math.inf else max(row_seconds, 0.9 * known)


def _rows(request: InferRequest) -> int:
    """The batch of a request, where its inputs have one."""
    return max((tensor.shape[0] for tensor in request.inputs if tensor.shape), default=1)
