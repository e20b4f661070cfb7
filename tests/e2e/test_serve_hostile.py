"""Malformed and hostile requests to a real server: a 4xx that says why, and others served on."""

from __future__ import annotations

import json
import socket
import threading
import zlib
from contextlib import ExitStack, closing
from http.client import HTTPConnection
from typing import TYPE_CHECKING, Any

import pytest

from edgectl.serve.slot import switch_link
from tests.support.images import png_bomb
from tests.support.server import Server, running
from tests.support.slots import SAMPLES, make_digits, make_slot

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_INFER = "/v2/models/digits/infer"
_MAX_BODY = 4 << 20
_IMAGE = {"content-type": "image/png"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    model = make_digits(tmp_path_factory.mktemp("model") / "digits")
    limits = ["--max-body", "4Mi", "--deadline", "3s"]
    with running("--model", str(model), *limits) as server:
        server.wait_ready()
        yield server


def _post(
    server: Server, body: Any, path: str = _INFER, headers: Any = None, method: str = "POST"
) -> tuple[int, Any]:
    with closing(server.connect()) as connection:
        connection.request(method, path, body, headers or {})
        response = connection.getresponse()
        return response.status, json.loads(response.read())


def _tensor(**changes: Any) -> bytes:
    tensor = {"name": "image", "shape": [1, 1, 8, 8], "datatype": "FP32", "data": [0.5] * 64}
    return json.dumps({"inputs": [{**tensor, **changes}]}).encode()


def _assert_serves(server: Server) -> None:
    status, answer = _post(server, _tensor())
    assert (status, answer["outputs"][0]["shape"]) == (200, [1, 10])


@pytest.mark.parametrize(
    ("body", "headers", "words"),
    [
        (b"", {}, "body"),
        (b"hello", {}, "JSON"),
        (b"[" * 1_000_000, {}, "nested too deeply"),
        (_tensor(shape=[1, 64]), {}, "shape"),
        (_tensor(shape=[-1, 1, 8, 8]), {}, "shape"),
        (_tensor(shape=[2**62, 1, 8, 8]), {}, "batch"),
        (_tensor(datatype="INT8", data=[1] * 64), {}, "takes FP32"),
        (_tensor(data=[0.5] * 63), {}, "63 were sent"),
        (_tensor(data=["0.5"] * 64), {}, "numbers"),
        (_tensor(data=[float("nan")] * 64), {}, "NaN"),
        (_tensor(data=[1e300] * 64), {}, "infinite"),
        (_tensor(), {"inference-header-content-length": "9" * 30}, "number of bytes"),
        (_tensor(), {"inference-header-content-length": "999999"}, "must be from 1"),
        (_tensor(), {"inference-header-content-length": "-5"}, "number of bytes"),
        (_tensor(), {"inference-header-content-length": "0"}, "send the shape"),
        ((SAMPLES / "digit-00.png").read_bytes()[:70], _IMAGE, "image"),
        (b"GIF89a", _IMAGE, "image"),
        (png_bomb(20_000, 20_000), _IMAGE, "pixels"),
    ],
)
def test_bad_requests_get_400_with_a_reason(
    server: Server, body: bytes, headers: Any, words: str
) -> None:
    status, answer = _post(server, body, headers=headers)
    assert status == 400
    assert words in answer["error"]
    _assert_serves(server)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("POST", "/v2/models/letters/infer", 404),
        ("POST", "/v2/models/digits/versions/9.9.9/infer", 404),
        ("GET", "/v2/models/letters", 404),
        ("GET", "/v2/models/digits/secrets", 404),
        ("GET", "/v2/models/..%2F..%2Fetc", 404),
        ("GET", "/", 404),
        ("GET", _INFER, 405),
        ("DELETE", "/v2", 405),
        ("POST", "/v2/repository/models/digits/load", 404),
    ],
)
def test_wrong_places(server: Server, method: str, path: str, status: int) -> None:
    got, answer = _post(server, _tensor() if method == "POST" else None, path, method=method)
    assert got == status
    assert answer["error"]


@pytest.mark.parametrize(
    ("coding", "body", "status", "words"),
    [
        ("br", b"x", 415, "send gzip, deflate or none"),
        ("deflate", b"hello", 400, "not deflate"),
        ("deflate", zlib.compress(_tensor())[:-1], 400, "cut short"),
        ("deflate", zlib.compress(b"\0" * (1 << 28)), 413, "limit"),
    ],
)
def test_bad_compression(server: Server, coding: str, body: bytes, status: int, words: str) -> None:
    got, answer = _post(server, body, headers={"content-encoding": coding})
    assert got == status
    assert words in answer["error"]
    _assert_serves(server)


def test_declared_gigabyte_is_refused_before_it_is_read(server: Server) -> None:
    with closing(server.connect()) as connection:
        connection.putrequest("POST", _INFER)
        connection.putheader("content-length", str(1 << 30))
        connection.endheaders()
        response = connection.getresponse()
        assert response.status == 413
        assert "limit" in json.loads(response.read())["error"]


def test_gigabyte_that_is_sent_anyway_gets_its_answer(server: Server) -> None:
    block = b"\0" * (1 << 20)
    before = server.resident_bytes()
    status, answer = _post(server, (block for _ in range(1 << 10)), headers={})
    assert status == 413
    assert "limit" in answer["error"]
    assert server.resident_bytes() < before + 16 * _MAX_BODY
    _assert_serves(server)


def test_others_are_served_while_large_bodies_arrive(server: Server) -> None:
    stop = threading.Event()

    def flood() -> None:
        while not stop.is_set():
            _post(server, b"\0" * (_MAX_BODY - 1))

    threads = [threading.Thread(target=flood) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(50):
            _assert_serves(server)
            assert server.get("/v2/health/live") == (200, {"live": True})
    finally:
        stop.set()
        for thread in threads:
            thread.join()


@pytest.mark.parametrize("begun", [b"{", None])
def test_slow_body_is_given_up(server: Server, begun: bytes | None) -> None:
    with closing(server.connect()) as connection:
        connection.putrequest("POST", _INFER)
        connection.putheader("content-length", "1000")
        connection.endheaders(begun)
        _assert_serves(server)
        response = connection.getresponse()
        assert response.status == 408
        assert "within 3 seconds" in json.loads(response.read())["error"]


def _talk(server: Server, data: bytes, step: int = 1 << 30) -> bytes:
    """Send bytes as no client library does, so many at a time, and read until the server closes."""
    host, port = server.address.split(":")
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for at in range(0, len(data), step):
            connection.sendall(data[at : at + step])
        received = b""
        while chunk := connection.recv(65536):
            received += chunk
        return received


@pytest.mark.parametrize(
    "data",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\n",
        b"POST %b HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\n" % _INFER.encode(),
        b"GET /\xff HTTP/1.1\r\n\r\n",
    ],
)
def test_what_is_not_http_gets_400_and_is_cut(server: Server, data: bytes) -> None:
    answer = _talk(server, data)
    assert answer.startswith(b"HTTP/1.1 400 ")
    _assert_serves(server)


def test_endless_head_is_cut(server: Server) -> None:
    answer = _talk(server, b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 500_000)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"head is over" in answer


def test_client_that_goes_away_is_forgotten(server: Server) -> None:
    for _ in range(20):
        with closing(server.connect()) as connection:
            connection.putrequest("POST", _INFER)
            connection.putheader("content-length", "100000")
            connection.endheaders(b"{" * 1000)
    _assert_serves(server)


def test_connections_without_end_leave_room_for_models(tmp_path: Path) -> None:
    slots = [make_slot(tmp_path, version) for version in ("1.1.0", "1.0.0")]
    with running("--state", str(tmp_path), open_files=700) as server, ExitStack() as held:
        server.wait_ready()
        ours = held.enter_context(closing(server.connect()))

        def status() -> Any:
            ours.request("GET", "/edgectl/v1/slot")
            return json.loads(ours.getresponse().read())

        assert status()["slot"] == slots[1].hex
        host, port = server.address.split(":")
        for _ in range(800):
            connection = socket.create_connection((host, int(port)), timeout=30)
            held.enter_context(connection)
        assert connection.recv(100).startswith(b"HTTP/1.1 503 Service Unavailable")
        switch_link(tmp_path, "current", slots[0])
        while (now := status())["wanted"] != slots[0].hex or now["state"] == "loading":
            pass
        assert (now["slot"], now["error"]) == (slots[0].hex, None)


def test_pipelined_requests_are_answered_in_order(server: Server) -> None:
    one = b"POST %b HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n%b"
    request = one % (_INFER.encode(), len(_tensor()), _tensor())
    last = b"GET /v2/health/live HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
    answer = _talk(server, request * 3 + last)
    assert answer.count(b"HTTP/1.1 200 OK") == 4
    assert answer.endswith(b'{"live":true}')


@pytest.mark.parametrize("step", [1, 1 << 20])
def test_upgrades_are_ignored(server: Server, step: int) -> None:
    """`curl --http2` and Java's client ask for one with every request."""
    body = _tensor()
    asked = b"host: x\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"
    asked += b"HTTP2-Settings: AAEAAEAA\r\n"
    post = b"POST %b HTTP/1.1\r\n%b" % (_INFER.encode(), asked)
    whole = post + b"content-length: %d\r\n\r\n%b" % (len(body), body)
    pieces = post + b"transfer-encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
    read = b"GET /v2/health/live HTTP/1.1\r\n%b\r\n" % asked
    last = read.replace(b"Upgrade,", b"Upgrade, close,")
    answer = _talk(server, whole + read + pieces + whole + last, step)
    assert answer.count(b"HTTP/1.1 200 OK") == answer.count(b"HTTP/1.1 ") == 5
    assert answer.count(b'"shape":[1,10]') == 3
    assert answer.endswith(b'{"live":true}')


def test_head_has_no_body(server: Server) -> None:
    with closing(HTTPConnection(server.address)) as connection:
        connection.request("HEAD", "/v2/health/ready")
        response = connection.getresponse()
        assert (response.status, response.read()) == (200, b"")
