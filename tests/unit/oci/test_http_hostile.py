"""A registry that is out to hold, crash or fill its client: each ends in one clear error."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from edgectl.errors import (
    EdgectlError,
    IntegrityError,
    RegistryDeniedError,
    RegistryUnavailableError,
)
from edgectl.oci.access import Access
from tests.unit.oci.conformance import BLOB, describe
from tests.unit.oci.raw import RawServer

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgectl.oci.store import Repository
    from tests.unit.oci.raw import Answer, Raw

    Operation = Callable[[Repository], object]

CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
SIGNED_IN = b'{"token":"a-secret-token"}'
ANN = Access(insecure=True, username="ann", password="secret", timeout=0.2)


def manifest(repository: Repository) -> object:
    return repository.read_manifest("1")


def head(repository: Repository) -> object:
    return repository.resolve("1")


def tags(repository: Repository) -> object:
    return repository.tags()


def blob(repository: Repository) -> object:
    return b"".join(repository.read_blob(describe(BLOB)))


def rest_of_blob(repository: Repository) -> object:
    return b"".join(repository.read_blob(describe(BLOB), offset=5))


def push(repository: Repository) -> None:
    repository.push_blob(describe(BLOB), BLOB)


def slowly(first: bytes, then: bytes) -> Answer:
    def answer(raw: Raw, _: bytes) -> None:
        raw.send(first)
        raw.repeat(then, 0.05)

    return answer


def endlessly(first: bytes, then: bytes) -> Answer:
    def answer(raw: Raw, _: bytes) -> None:
        raw.send(first)
        raw.repeat(then)

    return answer


def says(status: bytes, *headers: bytes, body: bytes = b"") -> Answer:
    lines = b"".join(line + b"\r\n" for line in (*headers, b"Content-Length: %d" % len(body)))
    return lambda raw, _: raw.send(b"HTTP/1.1 " + status + b"\r\n" + lines + b"\r\n" + body)


def redirects(location: bytes) -> Answer:
    return says(b"307 Moved", b"Location: " + location)


@pytest.mark.parametrize(
    ("answer", "operation"),
    [
        pytest.param(slowly(b"HTTP/1.1 200 OK\r\nX: ", b"a"), head, id="a head byte by byte"),
        pytest.param(slowly(b"", b"HTTP/1.1 100 Continue\r\n\r\n"), head, id="interim, slowly"),
        pytest.param(endlessly(b"", b"HTTP/1.1 100 Go\r\n\r\n" * 999), head, id="interim, fast"),
        pytest.param(slowly(CHUNKED + b"1;", b"x"), manifest, id="a chunk's size byte by byte"),
        pytest.param(endlessly(CHUNKED + b"1;", b"x" * 9999), manifest, id="a chunk's size"),
        pytest.param(slowly(CHUNKED + b"0\r\n", b"X: y\r\n"), manifest, id="trailers, slowly"),
        pytest.param(endlessly(CHUNKED + b"0\r\n", b"X: y\r\n" * 999), manifest, id="trailers"),
        pytest.param(
            endlessly(b"HTTP/1.1 307 T\r\nLocation: /v2/x\r\n\r\n", b"x" * 9999),
            blob,
            id="a redirect with a body",
        ),
        pytest.param(redirects(b"/v2/x"), blob, id="redirects in a circle"),
    ],
)
def test_nothing_holds_a_request_for_ever(answer: Answer, operation: Operation) -> None:
    with RawServer(answer) as server, pytest.raises(RegistryUnavailableError) as caught:
        operation(server.repository())
    assert caught.value.hint


@pytest.mark.parametrize(
    ("answer", "operation", "expected"),
    [
        *(
            pytest.param(redirects(location), blob, RegistryUnavailableError, id=f"to {location!r}")
            for location in (
                b"http://[",
                b"ftp://h/x",
                b"file:///etc/passwd",
                b"http://h:99999/",
                b"http://h\xff/",
                b"http://h\x00/",
                b"http://.a../",
            )
        ),
        pytest.param(says(b"304 Not Modified"), manifest, RegistryUnavailableError, id="304"),
        pytest.param(says(b"300 Choose"), manifest, RegistryUnavailableError, id="300"),
        pytest.param(
            says(b"503 T", b"Retry-After: \xb2"), blob, RegistryUnavailableError, id="retry after ²"
        ),
        pytest.param(
            says(b"206 T", b"Content-Range: bytes 5-6/" + b"9" * 5000),
            rest_of_blob,
            IntegrityError,
            id="a range of 5000 digits",
        ),
        pytest.param(
            says(b"200 OK", b"Link: <http://[>; rel=next", body=b'{"tags":["a"]}'),
            tags,
            IntegrityError,
            id="a next page nowhere",
        ),
        pytest.param(
            says(b"401 T", b'WWW-Authenticate: Bearer realm="http://["'),
            manifest,
            RegistryDeniedError,
            id="a realm nowhere",
        ),
        pytest.param(
            says(b"401 T", b"WWW-Authenticate: Bearer " + b"a" * 60000),
            manifest,
            RegistryDeniedError,
            id="a challenge of 60000 letters",
        ),
    ],
)
def test_what_makes_no_sense_is_one_clear_error(
    answer: Answer, operation: Operation, expected: type[EdgectlError]
) -> None:
    with RawServer(answer) as server, pytest.raises(expected) as caught:
        operation(server.repository())
    assert type(caught.value) is expected
    assert str(caught.value).isprintable()


def test_a_status_line_cannot_write_to_the_terminal() -> None:
    with RawServer(lambda raw, _: raw.send(b"HTTP/1.1 99 \x1b[2J\r\n\r\n")) as server:
        with pytest.raises(RegistryUnavailableError) as caught:
            manifest(server.repository())
        assert str(caught.value).isprintable()


def test_an_upload_nowhere_is_one_clear_error() -> None:
    def answer(raw: Raw, request: bytes) -> object:
        if request.startswith(b"HEAD"):
            return says(b"404 Not Found")(raw, request)
        return says(b"202 Accepted", b"Location: http://[")(raw, request)

    with RawServer(answer) as server, pytest.raises(RegistryUnavailableError, match="is none"):
        push(server.repository())


def test_a_write_is_not_redirected_into_a_read() -> None:
    def answer(raw: Raw, request: bytes) -> object:
        if request.startswith(b"HEAD"):
            return says(b"404 Not Found")(raw, request)
        return says(b"302 Found", b"Location: /elsewhere")(raw, request)

    with RawServer(answer) as server:
        with pytest.raises(RegistryDeniedError, match="redirected to"):
            push(server.repository())
        assert not any(b"elsewhere" in request for request in server.heads)


@pytest.mark.parametrize("token", ["a-secret\\r\\nX: y", "a-secret-\\u2603", "a secret"])
def test_a_token_that_is_none_is_not_sent_and_not_shown(token: str) -> None:
    def answer(raw: Raw, request: bytes) -> object:
        if b"/token" in request:
            return says(b"200 OK", body=f'{{"token":"{token}"}}'.encode())(raw, request)
        realm = f'WWW-Authenticate: Bearer realm="http://{server.host}/token"'.encode()
        return says(b"401 Unauthorized", realm)(raw, request)

    with RawServer(answer) as server:
        with pytest.raises(RegistryDeniedError) as caught:
            manifest(server.repository())
        assert "secret" not in str(caught.value)


@pytest.mark.parametrize("body", [b"[" * 20_000, b'{"token":' * 20_000, b"[]", b"\xff"])
def test_a_token_answer_that_makes_no_sense_is_one_clear_error(body: bytes) -> None:
    def answer(raw: Raw, request: bytes) -> object:
        if b"/token" in request:
            return says(b"200 OK", body=body)(raw, request)
        realm = f'WWW-Authenticate: Bearer realm="http://{server.host}/token"'.encode()
        return says(b"401 Unauthorized", realm)(raw, request)

    with RawServer(answer) as server, pytest.raises(RegistryDeniedError):
        manifest(server.repository())


@pytest.mark.parametrize("challenge", ["Basic", "Bearer"])
def test_storage_that_a_registry_redirects_to_gets_no_credentials(challenge: str) -> None:
    """What another host answers is no challenge of the registry's, whoever controls that host."""

    def storage(raw: Raw, request: bytes) -> object:
        realm = f'WWW-Authenticate: {challenge} realm="http://{thief.host}/token"'.encode()
        return says(b"401 Unauthorized", realm)(raw, request)

    with (
        RawServer(storage) as thief,
        RawServer(redirects(f"http://{thief.host}/blob".encode())) as server,
    ):
        with pytest.raises(RegistryDeniedError):
            blob(server.repository(ANN))
        assert thief.heads
        assert not any(b"authorization" in request.lower() for request in thief.heads)


def test_a_realm_that_redirects_keeps_the_password_to_itself() -> None:
    with RawServer(says(b"200 OK", body=SIGNED_IN)) as thief:

        def answer(raw: Raw, request: bytes) -> object:
            if b"/token" in request:
                return redirects(f"http://{thief.host}/token".encode())(raw, request)
            realm = f'WWW-Authenticate: Bearer realm="http://{server.host}/token"'.encode()
            return says(b"401 Unauthorized", realm)(raw, request)

        with RawServer(answer) as server:
            with pytest.raises(RegistryDeniedError):
                manifest(server.repository(ANN))
            assert any(b"Basic" in request for request in server.heads)
        assert thief.heads
        assert not any(b"authorization" in request.lower() for request in thief.heads)
