"""Slots switched under load, with a real server: no request fails."""

from __future__ import annotations

import threading
import time
from collections import Counter
from typing import TYPE_CHECKING

from edgectl.serve.slot import switch_link
from tests.support.server import Server, running
from tests.support.slots import make_slot

if TYPE_CHECKING:
    from pathlib import Path

_CLIENTS = 4
_SWITCHES = 30


class _Client(threading.Thread):
    """Sends requests one after the other until it is told to stop."""

    def __init__(self, server: Server, stop: threading.Event) -> None:
        super().__init__()
        self._server = server
        self._stop_requests = stop
        self.answers: Counter[str] = Counter()
        self.failures: list[str] = []

    def run(self) -> None:
        body = b'{"inputs":[{"name":"image","shape":[1,1,8,8],"datatype":"FP32","data":['
        body += b",".join([b"0.5"] * 64) + b"]}]}"
        connection = self._server.connect()
        while not self._stop_requests.is_set():
            connection.request("POST", "/v2/models/digits/infer", body)
            response = connection.getresponse()
            answer = response.read()
            if response.status == 200:
                self.answers[answer.split(b'"model_version":"')[1].split(b'"')[0].decode()] += 1
            else:
                self.failures.append(f"{response.status} {answer!r}")
        connection.close()


def test_no_request_fails_while_slots_switch(tmp_path: Path) -> None:
    slots = [make_slot(tmp_path, version) for version in ("1.1.0", "1.0.0")]
    stop = threading.Event()
    with running("--state", str(tmp_path), "--workers", "2") as server:
        server.wait_ready()
        clients = [_Client(server, stop) for _ in range(_CLIENTS)]
        for client in clients:
            client.start()
        for number in range(_SWITCHES):
            switch_link(tmp_path, "current", slots[number % 2])
            time.sleep(0.2)
        last = slots[(_SWITCHES - 1) % 2]
        status = server.wait_slot(lambda status: status["slot"] == last.hex)
        stop.set()
        for client in clients:
            client.join()
    assert [failure for client in clients for failure in client.failures] == []
    versions = sum((client.answers for client in clients), Counter())
    assert set(versions) == {"1.0.0", "1.1.0"}
    assert status["errors"] == 0
