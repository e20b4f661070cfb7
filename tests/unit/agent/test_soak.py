"""The probation against a real HTTP server that says what a scenario wants it to say."""

from __future__ import annotations

import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event
from typing import TYPE_CHECKING, Any

import pytest

from edgectl.agent import soak
from edgectl.agent.server import Server
from edgectl.digest import Digest
from edgectl.errors import HealthError, ServerUnavailableError
from edgectl.trust.release import SoakSettings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SLOT = Digest.of(b"slot")
SERVING = {
    "slot": SLOT.hex, "wanted": SLOT.hex, "state": "ready", "error": None,
    "requests": 10, "errors": 0,
}  # fmt: skip
LOADING = SERVING | {"slot": None, "state": "loading", "requests": 0}
OTHER = SERVING | {"slot": Digest.of(b"other").hex}
AWAY: dict[str, Any] = {}
"""The connection is closed without an answer."""


@contextmanager
def serving(answers: list[dict[str, Any]]) -> Iterator[Server]:
    """A server that gives one answer after the other, and the last for ever."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer = answers.pop(0) if len(answers) > 1 else answers[0]
            if answer:
                body = json.dumps(answer).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

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


@pytest.fixture(autouse=True)
def _look_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(soak, "_LOOK", 0.01)


@pytest.fixture
def watch() -> Callable[..., soak.SoakReport]:
    def run(
        answers: list[dict[str, Any]], seconds: float = 0.3, patience: float = 30.0
    ) -> soak.SoakReport:
        with serving(answers) as server:
            return soak.watch(
                server, SLOT, SoakSettings(seconds, 0.1), patience=patience, stop=Event()
            )

    return run


def test_a_healthy_slot_passes(watch: Callable[..., soak.SoakReport]) -> None:
    assert watch([SERVING]) == soak.SoakReport(10, 0)


def test_errors_end_it(watch: Callable[..., soak.SoakReport]) -> None:
    with pytest.raises(HealthError, match="20 of 100 requests failed"):
        watch([SERVING, SERVING | {"requests": 100, "errors": 20}], seconds=60)


def test_a_server_that_is_restarted_is_waited_for(watch: Callable[..., soak.SoakReport]) -> None:
    """An upgrade of the server takes longer than a few looks, and says nothing about a model."""
    away = [SERVING, *[AWAY] * 8, *[LOADING] * 4, SERVING | {"requests": 2}]
    assert watch(away, seconds=0.1) == soak.SoakReport(2, 0)


def test_a_server_that_stays_away_is_not_proven_to_be_the_model_s_fault(
    watch: Callable[..., soak.SoakReport],
) -> None:
    with pytest.raises(ServerUnavailableError):
        watch([SERVING, AWAY], seconds=60, patience=0.05)
    with pytest.raises(ServerUnavailableError):
        watch([SERVING, LOADING], seconds=60, patience=0.05)


def test_a_server_that_keeps_dying_of_it_ends_it(watch: Callable[..., soak.SoakReport]) -> None:
    with pytest.raises(HealthError, match="3 times"):
        watch([SERVING, AWAY, SERVING, AWAY, LOADING, SERVING, AWAY, SERVING], seconds=60)


@pytest.mark.parametrize(
    "answer",
    [OTHER, SERVING | {"slot": None, "state": "failed", "error": "it is broken"}],
)
def test_a_server_that_serves_something_else_ends_it(
    watch: Callable[..., soak.SoakReport], answer: dict[str, Any]
) -> None:
    with pytest.raises(HealthError, match="the server is"):
        watch([SERVING, answer], seconds=60)
