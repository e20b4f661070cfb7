"""A load generator for `serve`, in a process of its own: raw sockets, as little work as can be.

Reads {"host", "port", "path", "headers", "body" (hex), "connections", "requests"} from stdin and
prints {"p50", "p99", "rate"}: seconds, seconds, requests per second.
"""

from __future__ import annotations

import json
import selectors
import socket
import sys
import time
from typing import Any

_READ = 1 << 20


class _Connection:
    """Keeps one request on its way at any time."""

    def __init__(self, host: str, port: int, request: bytes) -> None:
        self.socket = socket.create_connection((host, port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._request = request
        self._received = bytearray()
        self._wanted: int | None = None
        self._sent = 0.0

    def send(self) -> None:
        self._received.clear()
        self._wanted = None
        self._sent = time.perf_counter()
        self.socket.sendall(self._request)

    def receive(self) -> float | None:
        """Read what is there; the seconds that the request took if that completes its answer."""
        data = self.socket.recv(_READ)
        if not data:
            raise ConnectionError("the server closed the connection")
        self._received += data
        if self._wanted is None:
            head, separator, _ = self._received.partition(b"\r\n\r\n")
            if not separator:
                return None
            if not head.startswith(b"HTTP/1.1 200"):
                raise RuntimeError(bytes(self._received).decode(errors="replace"))
            length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
            self._wanted = len(head) + 4 + length
        if len(self._received) < self._wanted:
            return None
        return time.perf_counter() - self._sent


def _measure(order: dict[str, Any]) -> dict[str, float]:
    body = bytes.fromhex(order["body"])
    lines = [f"POST {order['path']} HTTP/1.1", "host: bench", f"content-length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in order["headers"].items()]
    request = "\r\n".join(lines).encode() + b"\r\n\r\n" + body
    connections = [
        _Connection(order["host"], order["port"], request) for _ in range(order["connections"])
    ]
    for connection in connections:  # Outside of the measurement, the first of each.
        connection.send()
        while connection.receive() is None:
            pass
    seconds: list[float] = []
    started = time.perf_counter()
    with selectors.DefaultSelector() as selector:
        for connection in connections:
            selector.register(connection.socket, selectors.EVENT_READ, connection)
            connection.send()
        while len(seconds) < order["requests"]:
            for key, _ in selector.select():
                taken = key.data.receive()
                if taken is not None:
                    seconds.append(taken)
                    key.data.send()
    rate = len(seconds) / (time.perf_counter() - started)
    for connection in connections:
        connection.socket.close()
    seconds.sort()
    return {
        "p50": seconds[len(seconds) // 2],
        "p99": seconds[len(seconds) * 99 // 100],
        "rate": rate,
    }


if __name__ == "__main__":
    print(json.dumps(_measure(json.load(sys.stdin))))
