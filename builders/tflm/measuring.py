"""How much memory a model needs: the arena, by the interpreter, and what kernels add to it."""

from __future__ import annotations

import math
import os
import re
import resource
import tempfile
from contextlib import contextmanager
from typing import TYPE_CHECKING, NoReturn

import numpy as np

from edgectl.build.protocol import RefusalError
from edgectl.engine.tflm import host_arena, open_interpreter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from edgectl.engine.tflm_file import Graph, Model, Operator

ALIGNMENT = 16
"""Of the arena, and of every buffer in it (MicroArenaBufferAlignment)."""
_FAILED = re.compile(r"Node (\S+) \(number (\d+)\) failed to (\w+)")


def measure_arena(content: bytes, model: Model, name: str) -> int:
    """The smallest arena, in bytes, in which the interpreter loads the model and runs it once.

    On this machine, whose pointers have 64 bits: structures of the interpreter (for each tensor 24
    bytes, for each operator 64) are about twice what they are on a microcontroller, and the tensors
    themselves the same, so this is an upper bound for the same, portable kernels. Refuses what does
    not run in any arena, in the words of the interpreter.
    """
    high, most = 1024, host_arena(model)
    while (reason := _attempt(content, model, high)) is not None:
        if high >= most:
            raise _does_not_run(reason, name)
        high = min(2 * high, most)
    low = high // 2 if high > 1024 else 0
    while high - low > ALIGNMENT:
        middle = _aligned((low + high) // 2)
        if _attempt(content, model, middle) is None:
            high = middle
        else:
            low = middle
    return high


def _aligned(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT


def _attempt(content: bytes, model: Model, arena: int) -> str | None:
    """None if it runs in that arena, else what the interpreter wrote.

    In a process of its own: kernels of the interpreter use memory that an arena a few bytes too
    small did not give them, and end their process by a signal.
    """
    with _standard_error() as text:
        child = os.fork()
        if child == 0:
            _run_and_exit(content, model, arena)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if status == 0:
            return None
        said = text()
        return f"{said} (ended by signal {-status})".strip() if status < 0 else said


def _run_and_exit(content: bytes, model: Model, arena: int) -> NoReturn:
    status = 1
    try:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        interpreter = open_interpreter(content, arena, "the model")
        for index in range(len(model.main.inputs)):
            details = interpreter.get_input_details(index)
            interpreter.set_input(np.zeros(details["shape"], details["dtype"]), index)
        interpreter.invoke()
        status = 0
    except Exception as error:  # noqa: BLE001 - no exception may leave the child
        os.write(2, str(error).encode())
    finally:
        os._exit(status)


@contextmanager
def _standard_error() -> Iterator[Callable[[], str]]:
    """Catch what C++ writes to file descriptor 2; gives a function that returns it."""
    kept = os.dup(2)
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), 2)
        try:
            yield lambda: os.pread(file.fileno(), 1 << 16, 0).decode("utf-8", "replace").strip()
        finally:
            os.dup2(kept, 2)
            os.close(kept)


def _does_not_run(reason: str, name: str) -> RefusalError:
    failed = _FAILED.search(reason)
    where = f"operator {failed[2]} ({failed[1]})" if failed else None
    return RefusalError(
        "engine-refuses",
        f"TensorFlow Lite Micro does not run {name}"
        + (f": {where} fails to {failed[3]}" if failed else "")
        + f": {' '.join(reason.split())[:300]}",
        node=where,
        hint="the operator is there, but not for these types or shapes: convert the model to "
        "full-integer int8, or replace the operator",
    )


def kernel_scratch(model: Model) -> dict[str, int]:
    """What optimised kernels take of the arena beside the measured bytes: an estimate.

    The interpreter that is measured has portable kernels. CMSIS-NN unrolls the patches of a
    convolution into int16 (two columns of `arm_convolve_s8`), ESP-NN copies a filter and an input
    that it cannot read aligned. Scratch is taken for one operator at a time, so the most counts.
    """
    sizes = [
        _convolution_scratch(graph, operator)
        for graph in model.graphs
        for operator in graph.operators
        if operator.name in ("CONV_2D", "DEPTHWISE_CONV_2D")
    ]
    return {
        "cmsisNn": _aligned(max((arm for arm, _ in sizes), default=0)),
        "espNn": _aligned(max((esp for _, esp in sizes), default=0)),
    }


def _convolution_scratch(graph: Graph, operator: Operator) -> tuple[int, int]:
    given, kernel = (graph.tensors[index] for index in operator.inputs[:2])
    patch = math.prod(kernel.shape[1:])
    depthwise = operator.name == "DEPTHWISE_CONV_2D"
    arm = 2 * patch if depthwise else 4 * (-(-patch // 4) * 4)
    return arm, 2 * (given.elements + kernel.elements) + 16 * given.shape[-1] + 64
