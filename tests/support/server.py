"""A real `edgectl serve` process."""

from __future__ import annotations

import json
import resource
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

_LISTENING = "listening on http://"
_PATIENCE = 60


class Server:
    """A running server; `address` is `host:port`."""

    def __init__(self, process: subprocess.Popen[str], address: str) -> None:
        self.process = process
        self.address = address

    def connect(self, timeout: float = 30) -> HTTPConnection:
        """A new connection."""
        return HTTPConnection(self.address, timeout=timeout)

    def get(self, path: str) -> tuple[int, Any]:
        """GET, and the status and JSON of the answer."""
        connection = self.connect()
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, json.loads(response.read())
        finally:
            connection.close()

    def wait_ready(self) -> None:
        """Wait until models are served."""
        self.wait_slot(lambda status: status["state"] == "ready")

    def wait_slot(self, reached: Any) -> dict[str, Any]:
        """Wait until `/edgectl/v1/slot` says what `reached` is looking for."""
        deadline = time.monotonic() + _PATIENCE
        while True:
            _, status = self.get("/edgectl/v1/slot")
            if reached(status):
                return dict(status)
            if time.monotonic() > deadline:
                raise TimeoutError(f"the server did not get there: {status}")
            time.sleep(0.02)

    def resident_bytes(self) -> int:
        """Resident memory of the process."""
        statm = Path(f"/proc/{self.process.pid}/statm").read_text()
        return int(statm.split()[1]) * resource.getpagesize()


@contextmanager
def running(*arguments: str, open_files: int | None = None) -> Iterator[Server]:
    """Run `edgectl serve --port 0` with arguments; at the end it must drain and exit with 0.

    `open_files` is how many descriptors the system lets it have.
    """
    command = [str(Path(sys.executable).with_name("edgectl")), "serve", "--port", "0", *arguments]
    if open_files is not None:
        command = ["prlimit", f"--nofile={open_files}", *command]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            if not line.startswith(_LISTENING):
                raise RuntimeError(f"the server said {line!r}")
            yield Server(process, line.removeprefix(_LISTENING).strip())
            process.send_signal(signal.SIGTERM)
            code = process.wait(_PATIENCE)
            if code != 0:
                raise RuntimeError(f"the server ended with {code}")
        finally:
            if process.poll() is None:
                process.kill()
