"""Make what a model's engine compiles on the device, in a process of its own.

Only some engines do: TensorRT builds an engine for this GPU, OpenVINO compiles for its device, and
ONNX Runtime's TensorRT provider does both. It takes seconds to half an hour, and belongs before the
warm-up: a server that compiled as it loads would be away for as long.
"""

from __future__ import annotations

import json
import logging
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgectl.agent.child import STOPPING, Finished, TookTooLongError, run_child
from edgectl.agent.failure import InterruptedUpdateError
from edgectl.agent.stopping import pause
from edgectl.agent.warmup import UnhealthyModelError
from edgectl.errors import ConfigError
from edgectl.quantity import format_bytes, format_seconds

if TYPE_CHECKING:
    from pathlib import Path
    from threading import Event

    from edgectl.agent.facts import Facts
    from edgectl.agent.select import Variant

COMPILING_ENGINES = frozenset({"tensorrt", "openvino"})
COMPILING_PROVIDER = "TensorrtExecutionProvider"
_TELL_EVERY = 0.1
_GRACE = 1.0
"""Seconds in which the agent is told to stop too, if its compiler was."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Compiled:
    """What a compilation left."""

    made: bool
    """Whether anything had to be done."""
    seconds: float
    size: int
    """Bytes in the cache."""


def is_compiled_here(variant: Variant, facts: Facts) -> bool:
    """Whether the engine of a variant compiles on this device.

    Not where the device's hardware is simulated: what this machine compiles is not for it.
    """
    if facts.simulated:
        return False
    if variant.engine in COMPILING_ENGINES:
        return True
    wanted = variant.requires.get("providers", ())
    return COMPILING_PROVIDER in wanted and COMPILING_PROVIDER in facts.providers


def compile_model(
    model: str,
    directory: Path,
    cache: Path,
    timing: Path,
    *,
    threads: int,
    timeout: float,
    stop: Event,
) -> Compiled:
    """Fill a model's cache, or find it filled.

    `timing` is where measured kernels are kept for all models. Raises UnhealthyModelError for a
    model that the engine does not take or that takes too long, ConfigError where the engine is not
    on this device, InterruptedUpdateError and Stopped as `warm_up` does.
    """
    command = [sys.executable, "-P", "-m", "edgectl.engine.compile", str(directory),
               "--cache", str(cache), "--timing", str(timing),
               "--threads", str(threads)]  # fmt: skip
    try:
        done = run_child(command, timeout=timeout, stop=stop, on_line=_Progress(model).take)
    except TookTooLongError:
        raise UnhealthyModelError(
            model,
            f"compiling {model} took more than {format_seconds(timeout)}",
            hint="raise limits.compile in device.yaml, or release a smaller model",
        ) from None
    if -done.code in STOPPING:
        pause(_GRACE, stop)
        raise InterruptedUpdateError(f"compiling {model} {done.ending}")
    answer = _answer(model, done)
    if not answer["ok"]:
        raise _failure(model, answer)
    compiled = Compiled(bool(answer["made"]), float(answer["seconds"]), int(answer["bytes"]))
    _log.info(
        "compiled model=%s made=%s seconds=%.1f size=%s",
        model, compiled.made, compiled.seconds, format_bytes(compiled.size),
    )  # fmt: skip
    return compiled


def _answer(model: str, done: Finished) -> dict[str, Any]:
    if done.code != 0:
        raise UnhealthyModelError(model, f"compiling {model} {done.ending}: {done.errors}")
    try:
        answer = json.loads(done.output.splitlines()[-1])
        if answer["ok"]:
            return {key: answer[key] for key in ("ok", "made", "seconds", "bytes")}
        return {key: answer[key] for key in ("ok", "code", "message")}
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise UnhealthyModelError(
            model, f"compiling {model} gives a malformed answer: {error!r}"
        ) from error


def _failure(model: str, answer: dict[str, Any]) -> ConfigError | UnhealthyModelError:
    """An engine or hardware that is missing says nothing about the model."""
    message = f"{model} cannot be compiled on this device: {answer['message']}"
    if answer["code"] == "unavailable":
        return ConfigError(
            message, hint="install the engine and its driver, or label the device otherwise"
        )
    return UnhealthyModelError(
        model, message, hint="release a version that this engine takes; this one is not tried again"
    )


class _Progress:
    """Logs the progress of a compilation, at every tenth."""

    def __init__(self, model: str) -> None:
        self._model = model
        self._next = 0.0

    def take(self, line: bytes) -> None:
        """Read a line; one that is no progress is the answer, or an engine's own."""
        try:
            value = json.loads(line)
            progress, message = float(value["progress"]), str(value["message"])
        except (ValueError, LookupError, TypeError, RecursionError):
            return
        if progress >= self._next:
            self._next = progress + _TELL_EVERY
            _log.info("compile model=%s progress=%.2f step=%s", self._model, progress, message)
