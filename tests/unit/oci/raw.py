"""A server that answers with whatever bytes a test gives it, for what no HTTP server would send."""

from __future__ import annotations

import contextlib
import socketserver
import threading
from typing import TYPE_CHECKING, Self

from edgectl.oci.access import Access, open_store
from edgectl.oci.reference import RegistryLocation

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgectl.oci.store import Repository

    Answer = Callable[["Raw", bytes], object]
    """Told the head of a request, it writes what it wants to the connection."""


class RawServer:
    """Answers every request by `answer`; a connection ends when the answer returns False."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.stopping = threading.Event()
        self.heads: list[bytes] = []
        self._server = _Server(("127.0.0.1", 0), Raw)
        self._server.owner = self

    def __enter__(self) -> Self:
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
        )
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stopping.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self._server.server_address[1]}"

    def repository(self, access: Access | None = None) -> Repository:
        """A production repository on this server, which is given up after 0.2 s of silence."""
        access = access or Access(insecure=True, timeout=0.2, slow_after=0.4)
        return open_store(RegistryLocation(self.host), access).repository("r")


class Raw(socketserver.StreamRequestHandler):
    """One connection."""

    server: _Server

    def handle(self) -> None:
        with contextlib.suppress(ConnectionError):
            while head := self._head():
                self.server.owner.heads.append(head)
                if self.server.owner.answer(self, head) is False:
                    return

    def send(self, data: bytes) -> None:
        self.wfile.write(data)

    def repeat(self, data: bytes, pause: float = 0.0) -> None:
        """Send the same over and over, until the client or the test has had enough."""
        while not self.server.owner.stopping.wait(pause):
            self.wfile.write(data)

    def _head(self) -> bytes:
        lines = iter(self.rfile.readline, b"")
        head = b""
        for line in lines:
            head += line
            if line == b"\r\n":
                return head
        return b""


class _Server(socketserver.ThreadingTCPServer):
    owner: RawServer
    daemon_threads = True
