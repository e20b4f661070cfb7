"""Several models in turn on one machine: each in its own process, so that memory is its own, and
each a slice of time in every round, so that what slows the machine slows all of them."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import tempfile
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import edgectl
from edgectl.build.builder import find_builder
from edgectl.build.toolchain import prepare
from edgectl.engine.measure import percentile
from edgectl.engine.npz import read_npz

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import TracebackType

    from numpy.typing import NDArray

ROUNDS = 8
SLICE_SECONDS = 0.1
LEAST_RUNS = 25
"""In a round: p99 is then of 200 runs or more."""
MOST_RUNS = 250

_REPOSITORY = Path(__file__).resolve().parents[2]
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


@dataclass(frozen=True, slots=True)
class Contender:
    """A model and what runs it."""

    title: str
    toolchain: str
    """Name of the builder in whose environment it runs."""
    model: str
    data: str
    """An .npz; its first row is timed."""
    engine: str = ""
    """An engine of edgectl; empty for the framework of `form`."""
    form: str = "onnx"
    inputs: tuple[Mapping[str, Any], ...] = ()
    outputs: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True, slots=True)
class Timing:
    """How a contender did."""

    contender: Contender
    engine: str
    """Name and version."""
    peak: int
    """Bytes resident at most, all of the process, after loading and a few runs of one row."""
    taken: tuple[int, ...]
    """Nanoseconds of each run, by the clock on the wall."""
    cpu: tuple[float, ...]
    """Nanoseconds of the processor for one run, on average in each round."""
    outputs: Mapping[str, NDArray[Any]] | None = None
    """Of all rows, if they were asked for."""

    def seconds(self, percent: float) -> float:
        """A percentile of all runs."""
        return percentile(self.taken, percent) / 1e9

    @property
    def cpu_seconds(self) -> float:
        """Of the processor for one run: the median over the rounds."""
        return statistics.median(self.cpu) / 1e9


class FailedError(Exception):
    """A contender cannot run; the message is the last that it said."""


def ratio(base: Timing, other: Timing) -> float:
    """How many times as fast as the base: the median over rounds of the ratio of processor times.

    Both ran in each round, one soon after the other, so that a slow moment of the machine is in
    both halves of a quotient; and time in which another process had the core is in neither. On an
    idle machine a thread's time is that of the wall.
    """
    return statistics.median(a / b for a, b in zip(base.cpu, other.cpu, strict=True))


def race(
    contenders: Sequence[Contender],
    *,
    rounds: int = ROUNDS,
    seconds: float = SLICE_SECONDS,
    least: int = LEAST_RUNS,
    answers: bool = False,
) -> tuple[list[Timing], dict[str, str]]:
    """Time all of them; returns what was measured, and title to reason of those that failed.

    With `answers`, each then runs all rows of its data.
    """
    failed: dict[str, str] = {}
    with ExitStack() as stack:
        workers = []
        for contender in contenders:
            try:
                workers.append(stack.enter_context(_Worker(contender)))
            except FailedError as error:
                failed[contender.title] = str(error)
        command = {"seconds": seconds, "least": least, "most": MOST_RUNS}
        laps: list[list[dict[str, Any]]] = [[] for _ in workers]
        for _ in range(rounds):
            for worker, own in zip(workers, laps, strict=True):
                own.append(worker.ask(command))
        return [
            Timing(
                worker.contender,
                worker.ready["engine"],
                worker.ready["peak"],
                tuple(each for lap in own for each in lap["taken"]),
                tuple(lap["cpu"] for lap in own),
                worker.answers() if answers else None,
            )
            for worker, own in zip(workers, laps, strict=True)
        ], failed


class _Worker:
    """A process that runs one model; see `tests.bench._worker`."""

    def __init__(self, contender: Contender) -> None:
        self.contender = contender
        self._scratch = tempfile.TemporaryDirectory(prefix="edgectl-bench-")
        folder = Path(self._scratch.name)
        # The toolchain's own packages and these two, as when edgectl runs a builder.
        (folder / "edgectl").symlink_to(Path(edgectl.__file__).parent)
        (folder / "tests").symlink_to(_REPOSITORY / "tests")
        self._errors = (folder / "stderr").open("w+")
        python = prepare(find_builder(contender.toolchain))
        self._process = subprocess.Popen(
            [python, "-P", "-m", "tests.bench._worker", json.dumps(asdict(contender))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            cwd=folder,
            env={
                "PATH": os.defpath,
                "HOME": str(folder),
                "PYTHONPATH": str(folder),
                "PYTHONDONTWRITEBYTECODE": "1",
                "PYTHONWARNINGS": "ignore",
                "TF_CPP_MIN_LOG_LEVEL": "2",
                "CUDA_VISIBLE_DEVICES": "",
                **dict.fromkeys(_THREADS, "1"),
            },
        )

    def __enter__(self) -> Self:
        try:
            self.ready = self._read()
        except FailedError:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait()
        self._errors.close()
        self._scratch.cleanup()

    def ask(self, command: Mapping[str, Any]) -> dict[str, Any]:
        """Send a command; returns the answer."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(command) + "\n")
        self._process.stdin.flush()
        return self._read()

    def answers(self) -> dict[str, NDArray[Any]]:
        """The outputs for all rows."""
        path = Path(self._scratch.name) / "answers.npz"
        self.ask({"answers": str(path)})
        return read_npz(path)

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self._process.wait()
            self._errors.seek(0)
            said = [text.strip() for text in self._errors if text.strip()]
            raise FailedError((said or [f"exit status {self._process.returncode}"])[-1])
        answer: dict[str, Any] = json.loads(line)
        return answer
