"""The builder protocol, version 1: what edgectl and a toolchain say to each other.

`python build.py request.json` reads a request, writes its outputs and `result.json` into the
current directory, and prints progress as JSON lines. Both sides import this module, and in a
toolchain's environment little else is installed: the standard library alone.

    request.json  {"protocol": 1, "action": ..., "model": ..., "inputs": {role: path},
                   "params": {...}}
    result.json   {"protocol": 1, "status": "ok", "outputs": {role: path}, "metadata": {...}}
               or {"protocol": 1, "status": "refused", "code", "message", "hint", "node"}
    stdout        {"progress": 0..1, "message": ...}
    stdin         a pipe that ends when edgectl does; the builder then ends too
"""

from __future__ import annotations

import json
import os
import signal
import stat
import sys
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

PROTOCOL = 1
RESULT_FILE = "result.json"


@dataclass(frozen=True, slots=True)
class Task:
    """A request, seen from the builder: outputs go into the current directory."""

    action: str
    model: str
    inputs: Mapping[str, Path]
    """Files by role, for example `source`, `model`, `calibration`."""
    params: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Done:
    """What an action made: names of files or directories, relative to the current one, by role."""

    outputs: Mapping[str, str]
    metadata: Mapping[str, Any] = field(default_factory=dict)


class RefusalError(Exception):
    """The builder understood the request and will not do it: the input is at fault.

    `node` names the node, operator or type of the model that is refused, where there is one;
    `hint` says what the author of the model can do.
    """

    def __init__(self, code: str, message: str, *, hint: str, node: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.hint = hint
        self.node = node


def report(progress: float, message: str) -> None:
    """Tell edgectl how far the work is (0 to 1)."""
    print(json.dumps({"progress": round(progress, 3), "message": message}), flush=True)  # noqa: T201


def main(actions: Mapping[str, Callable[[Task], Done]]) -> None:
    """Serve one request: the whole of a `build.py`'s `__main__`.

    Libraries that print get stderr instead, so that stdout carries the protocol alone.
    """
    sys.stdout = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    _end_with_edgectl()
    request = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    if request["protocol"] != PROTOCOL:
        raise SystemExit(f"this builder speaks protocol {PROTOCOL}, not {request['protocol']}")
    task = Task(
        request["action"],
        request["model"],
        {role: Path(path) for role, path in request["inputs"].items()},
        request["params"],
    )
    try:
        if task.action not in actions:
            raise RefusalError(
                "unknown-action",
                f"this builder has no action {task.action!r}",
                hint=f"it has {', '.join(sorted(actions))}",
            )
        done = actions[task.action](task)
    except RefusalError as refusal:
        _write_result(
            status="refused",
            code=refusal.code,
            message=refusal.message,
            hint=refusal.hint,
            node=refusal.node,
        )
    else:
        _write_result(status="ok", outputs=dict(done.outputs), metadata=dict(done.metadata))


def _end_with_edgectl() -> None:
    """End this process and its children when edgectl dies, even by SIGKILL: its pipe then ends.

    Run by hand, stdin is a terminal or a file, and nothing is watched.
    """
    if not stat.S_ISFIFO(os.fstat(0).st_mode):
        return
    pipe = os.dup(0)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)  # a library that reads stdin gets its end, and does not take this pipe's
    os.close(null)
    threading.Thread(target=_wait_for_end, args=(pipe,), daemon=True).start()


def _wait_for_end(pipe: int) -> None:
    while os.read(pipe, 1):
        pass
    if os.getpgrp() == os.getpid():  # as edgectl starts it: the group is this process's own
        os.killpg(os.getpid(), signal.SIGKILL)
    os._exit(1)


def _write_result(**fields: Any) -> None:
    text = json.dumps({"protocol": PROTOCOL, **fields}, sort_keys=True, allow_nan=False)
    Path(RESULT_FILE).write_text(text, encoding="utf-8")
