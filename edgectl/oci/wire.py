"""Responses that keep no reader waiting: bounds on time and framing, below http.client.

http.client waits anew for each piece that arrives, and passes over interim responses, chunk sizes
and trailers for as long as they come. A hostile server could hold a request that way for ever,
with a byte now and then. Here the head of a response has to be whole within the timeout of its
connection, and so has each later read to bring something; neither may take more from the socket
than was asked for and a little framing.
"""

from __future__ import annotations

import http.client
import io
import time
from typing import TYPE_CHECKING, Any

from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

if TYPE_CHECKING:
    import socket

    from urllib3 import PoolManager

_FRAMING_BYTES = 256 << 10
"""Most that comes beside what is asked for: heads and chunk sizes are far below it."""


class WireError(http.client.HTTPException):
    """A response that takes too long, or brings too little for what it sends."""


def bound(manager: PoolManager) -> None:
    """Let every new connection of a pool manager read its responses within the bounds."""
    manager.pool_classes_by_scheme = {"http": _Pool, "https": _TlsPool}


class Answer(http.client.HTTPResponse):
    """A response whose head, and then each read of its body, is one bounded step."""

    def __init__(self, sock: socket.socket, *args: Any, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        self._wire = _Wire(self.fp.detach(), sock)
        self.fp = io.BufferedReader(self._wire)

    def read(self, amt: int | None = None) -> bytes:
        """Read `amt` bytes, fewer at the end; without a number, all of a short body."""
        self._wire.step(amt or 0)
        return super().read(amt)

    def read1(self, n: int = -1) -> bytes:
        """Read at most `n` bytes as they come."""
        self._wire.step(max(n, 0))
        return super().read1(n)


class _Connection(HTTPConnection):
    response_class = Answer


class _TlsConnection(HTTPSConnection):
    response_class = Answer


class _Pool(HTTPConnectionPool):
    ConnectionCls = _Connection


class _TlsPool(HTTPSConnectionPool):
    ConnectionCls = _TlsConnection


class _Wire(io.RawIOBase):
    """What comes out of a socket, in steps."""

    def __init__(self, raw: io.RawIOBase, sock: socket.socket) -> None:
        self._raw = raw
        self._socket = sock
        self._timeout = sock.gettimeout()
        self.step(0)

    def step(self, wanted: int) -> None:
        """Begin a step that brings at most so many bytes, and framing, within the timeout."""
        self._left = wanted + _FRAMING_BYTES
        self._began = time.monotonic()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        if self._left <= 0:
            raise WireError("it sends more than it was asked for")
        self._limit_wait()
        with memoryview(buffer) as view, view[: self._left] as wanted:
            count = self._raw.readinto(wanted) or 0
        self._left -= count
        return count

    def close(self) -> None:
        self._raw.close()
        super().close()

    def _limit_wait(self) -> None:
        """Let the socket wait no longer than what the step has left."""
        if self._timeout is None:
            return
        left = self._timeout - (time.monotonic() - self._began)
        if left <= 0:
            raise TimeoutError("no answer in time")
        self._socket.settimeout(left)
