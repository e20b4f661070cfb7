"""Runs one toolchain process: its own process group, bounded output, killed when it is not wanted.

A worker thread of `apply` sees no KeyboardInterrupt, so a cancellation is an event that is polled.
"""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import time
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, BinaryIO, cast

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

MAX_LINE_BYTES = 64 << 10
"""A longer line of output is cut into pieces of this size."""
STDERR_TAIL_LINES = 40
_POLL_SECONDS = 0.1
_READ_BYTES = 16 << 10


class CancelledError(Exception):
    """The process was killed because the caller no longer wants its result."""


class OverdueError(Exception):
    """The process was killed because it took longer than it may."""


class _Lines:
    """Splits a stream into lines of bounded length."""

    def __init__(self, deliver: Callable[[str], None]) -> None:
        self._deliver = deliver
        self._rest = b""

    def feed(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > MAX_LINE_BYTES:
            lines.append(self._rest)
            self._rest = b""
        for line in lines:
            self._deliver(line.decode(errors="replace"))

    def end(self) -> None:
        if self._rest:
            self._deliver(self._rest.decode(errors="replace"))
            self._rest = b""


def run_process(
    command: Sequence[str],
    *,
    cwd: Path,
    env: Mapping[str, str],
    on_line: Callable[[str], None],
    cancel: threading.Event | None = None,
    timeout: float | None = None,
    keep: Sequence[int] = (),
) -> tuple[int, list[str]]:
    """Run a command to its end; returns its exit status and the last lines of its stderr.

    Each line of stdout goes to `on_line` as it comes; nothing else of it is kept. Raises
    CancelledError once `cancel` is set, OverdueError after `timeout` seconds. However this function
    is left, no process of the group survives it. Nothing is ever written to the command's stdin: it
    ends when this process does, by SIGKILL too, so that the command can end itself
    (`edgectl.build.protocol` does). One that cannot takes the file descriptors `keep` along, such
    as that of a lock on what it writes.
    """
    tail: deque[str] = deque(maxlen=STDERR_TAIL_LINES)
    with subprocess.Popen(
        command,
        cwd=cwd,
        env=env,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        pass_fds=keep,
    ) as process:
        try:
            deadline = None if timeout is None else time.monotonic() + timeout
            _pump(process, _Lines(on_line), _Lines(tail.append), cancel, deadline)
            return process.returncode, list(tail)
        finally:
            _kill_group(process.pid)


def _pump(
    process: subprocess.Popen[bytes],
    stdout: _Lines,
    stderr: _Lines,
    cancel: threading.Event | None,
    deadline: float | None,
) -> None:
    """Deliver output until the process ends; what it left in the pipes then is delivered too.

    The end of the pipes says little: a child can hold them open after the process, and the process
    can close them and go on.
    """
    with selectors.DefaultSelector() as selector:
        selector.register(cast("BinaryIO", process.stdout), selectors.EVENT_READ, stdout)
        selector.register(cast("BinaryIO", process.stderr), selectors.EVENT_READ, stderr)
        while process.poll() is None:
            if cancel is not None and cancel.is_set():
                raise CancelledError
            if deadline is not None and time.monotonic() > deadline:
                raise OverdueError
            if selector.get_map():
                _deliver(selector, _POLL_SECONDS)
            else:
                with suppress(subprocess.TimeoutExpired):
                    process.wait(_POLL_SECONDS)
        _kill_group(process.pid)
        while _deliver(selector, 0):
            pass
    stdout.end()
    stderr.end()


def _deliver(selector: selectors.BaseSelector, timeout: float) -> bool:
    """Hand on what is in the pipes; whether there was something, be it an end."""
    ready = selector.select(timeout)
    for key, _ in ready:
        data = os.read(key.fd, _READ_BYTES)
        if data:
            key.data.feed(data)
        else:
            selector.unregister(key.fileobj)
    return bool(ready)


def _kill_group(pid: int) -> None:
    try:
        os.killpg(pid, signal.SIGKILL)
    except ProcessLookupError:
        return  # the leader and all its children are gone already
