"""A device's server that answers what a scenario wants it to answer, over real HTTP."""

from __future__ import annotations

import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

from edgectl.agent.server import Server

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

Answer = tuple[int, dict[str, Any]]
"""Status and JSON."""
AWAY: Answer = (0, {})
"""The connection is closed without an answer."""


@contextmanager
def scripted(answers: Sequence[Answer]) -> Iterator[Server]:
    """A client of a server that gives one answer after the other, and the last for ever."""
    left = list(answers)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer = left.pop(0) if len(left) > 1 else left[0]
            if answer != AWAY:
                status, value = answer
                body = json.dumps(value).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            self.do_GET()

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield Server(f"http://127.0.0.1:{server.server_port}", timeout=5)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
