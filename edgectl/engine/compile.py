"""Make on this machine what an engine compiles there, before anything is measured or served.

`python -m edgectl.engine.compile MODEL_DIR --cache DIR [--timing DIR] [--threads N]` prints JSON
lines: `{"progress": 0..1, "message": …}` as the work goes on, and at last `{"ok": true, "made":
bool, "seconds": …, "bytes": …}`, or `{"ok": false, "code", "message", "operator", "node"}` with
one of the codes `unavailable`, `unsupported`, `failed`. The exit status is 0 in both cases; another
one means that the process died. It ends when its stdin does: whoever started it is gone.

TensorRT builds an engine for the GPU at hand, OpenVINO keeps what it compiled for a device, and
ONNX Runtime's TensorRT provider does both as it runs. Others compile nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import stat
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgectl.engine.errors import EngineError, EngineUnavailableError, UnsupportedError
from edgectl.engine.golden import MAX_GOLDEN_BYTES
from edgectl.engine.modeldir import ModelDirectory
from edgectl.engine.npz import read_npz
from edgectl.engine.options import EngineOptions

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import FrameType

TENSORRT_PROVIDER = "TensorrtExecutionProvider"


def compile_model(
    model: ModelDirectory, cache: Path, *, timing: Path | None = None, threads: int = 1
) -> bool:
    """Fill `cache` with what the model's engine compiles; False if there was nothing to do.

    `timing` is a directory for measured kernels, which the models of a machine share. Raises
    EngineUnavailableError, UnsupportedError (with operator and node) and EngineError.
    """
    engine = str(model.signature.engine.get("name", "onnxruntime"))
    if engine == "tensorrt":
        return _compile_tensorrt(model, cache, timing)
    if engine == "openvino" or TENSORRT_PROVIDER in model.signature.engine.get("providers", ()):
        return _compile_by_loading(model, cache, threads)
    return False


def _compile_tensorrt(model: ModelDirectory, cache: Path, timing: Path | None) -> bool:
    try:
        from edgectl.engine.tensorrt import prepare
    except ImportError as error:
        raise EngineUnavailableError(f"TensorRT is not installed here: {error}") from error
    said = model.signature.engine
    options = EngineOptions.from_json(dict(said) | {"timingCache": timing}, cache)
    return prepare(model.model_file, options=options, report=_report)


def _compile_by_loading(model: ModelDirectory, cache: Path, threads: int) -> bool:
    """These compile as they load and first run, into the cache that they are given."""
    before = set(_files(cache))
    _report(0.0, "loading the model")
    session = model.load(threads=threads, cache=cache)
    try:
        if model.golden_file is not None:
            arrays = read_npz(model.golden_file, rows=1, max_bytes=MAX_GOLDEN_BYTES)
            _report(0.5, "running it once")
            session.run({spec.name: arrays[spec.name] for spec in session.inputs})
    finally:
        session.close()
    return bool(set(_files(cache)) - before)


def _files(directory: Path) -> list[Path]:
    return [path for path in directory.rglob("*") if path.is_file()]


def _report(progress: float, message: str) -> bool:
    _say({"progress": round(progress, 3), "message": message})
    return not _cancelled.is_set()


def _say(value: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()


_cancelled = threading.Event()


def _cancel(_number: int, _frame: FrameType | None) -> None:
    """The build ends at its next step; whoever is in a hurry sends SIGKILL after it."""
    _cancelled.set()


def _end_with_parent() -> None:
    """Half an hour of a GPU's time is not to be spent for somebody who has died."""
    if stat.S_ISFIFO(os.fstat(0).st_mode):
        threading.Thread(target=_wait_for_end, daemon=True).start()


def _wait_for_end() -> None:
    while os.read(0, 1):
        pass
    os._exit(1)


def _failure(error: EngineError) -> dict[str, Any]:
    code = "failed"
    if isinstance(error, EngineUnavailableError):
        code = "unavailable"
    elif isinstance(error, UnsupportedError):
        code = "unsupported"
    return {
        "ok": False,
        "code": code,
        "message": str(error),
        "operator": getattr(error, "operator", None),
        "node": getattr(error, "node", None),
    }


def _main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m edgectl.engine.compile")
    parser.add_argument("model", type=Path)
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--timing", type=Path)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args(arguments)
    _end_with_parent()
    signal.signal(signal.SIGTERM, _cancel)
    started = time.perf_counter()
    try:
        given.cache.mkdir(parents=True, exist_ok=True)
        model = ModelDirectory.open(given.model)
        made = compile_model(model, given.cache, timing=given.timing, threads=given.threads)
    except OSError as error:
        _say(_failure(EngineError(f"cannot write to the cache {given.cache}: {error.strerror}")))
    except EngineError as error:
        _say(_failure(error))
    else:
        _say({
            "ok": True,
            "made": made,
            "seconds": round(time.perf_counter() - started, 3),
            "bytes": sum(path.stat().st_size for path in _files(given.cache)),
        })  # fmt: skip
    return 0


if __name__ == "__main__":
    sys.exit(_main())
