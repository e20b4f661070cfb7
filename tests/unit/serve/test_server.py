from __future__ import annotations

import resource
import socket
from contextlib import closing

import pytest

from edgectl.serve import server
from edgectl.serve.server import ServeConfig, serve


def test_an_answer_that_nobody_reads_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """The memory of it would be kept for as long as a client likes."""
    monkeypatch.setattr(server, "_UNREAD_MILLISECONDS", 200)
    with closing(server._listen("127.0.0.1", 0)) as listener:
        listener.listen()
        with closing(socket.create_connection(listener.getsockname())):
            accepted, _ = listener.accept()
            with closing(accepted), pytest.raises(TimeoutError):
                accepted.sendall(bytes(1 << 26))


def test_files_are_left_for_what_is_no_connection() -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        most = server._allow_connections()
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        assert hard == before[1]
        assert 0 < most < soft
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.mark.parametrize("limits", [{"max_body": 0}, {"deadline": 0.0}, {"deadline": -1.0}])
def test_limits_that_no_request_could_keep_to(limits: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="more than nothing"):
        serve(ServeConfig(**limits), print)  # type: ignore[arg-type]
