"""A process of its own for what may take long, crash or never end, with a time limit.

It ends with the agent, killed or not, if it watches its stdin, which is a pipe.
"""

from __future__ import annotations

import selectors
import signal
import subprocess
import time
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING

from edgectl.agent.failure import InterruptedUpdateError
from edgectl.agent.stopping import Stopped

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from threading import Event

_LOOK = 0.1
"""Seconds between looks at the stop flag."""
_KEPT = 1 << 20
"""Most bytes of output that are kept: the last ones."""
_STDERR_KEPT = 500
_CHUNK = 1 << 16

STOPPING = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP}
"""What somebody sends who wants a process to end: systemd, to all of a service at once."""


class TookTooLongError(Exception):
    """The time limit passed; the process was killed."""


@dataclass(frozen=True, slots=True)
class Finished:
    """How a process ended."""

    output: bytes
    """The last megabyte of it."""
    errors: str
    """The end of what it wrote to stderr."""
    code: int
    """Negative if a signal ended it."""

    @property
    def ending(self) -> str:
        """The end in words, such as `was killed by SIGKILL`."""
        if self.code < 0:
            return f"was killed by {signal.Signals(-self.code).name}"
        return f"ended with exit code {self.code}"


def run_child(
    command: Sequence[str],
    *,
    timeout: float,
    stop: Event,
    on_line: Callable[[bytes], None] = lambda _line: None,
) -> Finished:
    """Run a command to its end; `on_line` gets each line of its output as it comes.

    Raises TookTooLongError after `timeout` seconds and Stopped if the agent is asked to stop, both
    after the process was killed. Raises InterruptedUpdateError if the system refuses to start it.
    """
    deadline = time.monotonic() + timeout
    with (
        _start(command) as process,
        selectors.DefaultSelector() as selector,
    ):
        reader = _Reader(process, selector, on_line)
        try:
            while not reader.look(_LOOK):
                if stop.is_set():
                    raise Stopped
                if time.monotonic() > deadline:
                    raise TookTooLongError
        except BaseException:
            process.kill()
            raise
        return Finished(reader.output, reader.errors, process.wait())


def _start(command: Sequence[str]) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C in a terminal is for the agent alone
        )
    except OSError as error:  # no memory, or no process or file more: it passes
        raise InterruptedUpdateError(
            f"this device cannot start another process now: {error.strerror}",
            hint="the agent tries again by itself; if this stays, see what takes the device's "
            "memory and processes",
        ) from error


class _Reader:
    """Reads both outputs of a process until it has ended."""

    def __init__(
        self,
        process: subprocess.Popen[bytes],
        selector: selectors.BaseSelector,
        on_line: Callable[[bytes], None],
    ) -> None:
        self.output = b""
        self._process = process
        self._on_line = on_line
        self._line = b""
        self._errors = b""
        self._selector = selector
        for stream in (process.stdout, process.stderr):
            self._selector.register(_opened(stream), selectors.EVENT_READ)

    @property
    def errors(self) -> str:
        """The end of stderr, as text."""
        return self._errors.decode(errors="replace").strip()

    def look(self, seconds: float) -> bool:
        """Take what comes within some time; whether the process has ended and all is read."""
        if not self._selector.get_map():
            try:
                self._process.wait(seconds)
            except subprocess.TimeoutExpired:
                return False
            return True
        for key, _ in self._selector.select(seconds):
            chunk = key.fileobj.read1(_CHUNK)  # type: ignore[union-attr]
            if not chunk:
                self._selector.unregister(key.fileobj)
            elif key.fileobj is self._process.stdout:
                self._take(chunk)
            else:
                self._errors = (self._errors + chunk)[-_STDERR_KEPT:]
        return False

    def _take(self, chunk: bytes) -> None:
        self.output = (self.output + chunk)[-_KEPT:]
        *lines, self._line = (self._line + chunk).split(b"\n")
        self._line = self._line[-_KEPT:]
        for line in lines:
            self._on_line(line)


def _opened(stream: IO[bytes] | None) -> IO[bytes]:
    if stream is None:
        raise RuntimeError("the process was started without pipes")
    return stream
