"""HTTP as the server needs it: uvicorn's protocol with limits, reading bodies, answering.

uvicorn leaves to a proxy what a device has no proxy for: a bound on a request's head and on the
time that it takes, and an answer that a client still gets to read when it is refused while it is
sending.
"""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from edgectl.serve.inflate import CODINGS, Inflater

if TYPE_CHECKING:
    from asyncio.events import TimerHandle
    from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping

    Message = MutableMapping[str, Any]
    Scope = MutableMapping[str, Any]
    Receive = Callable[[], Awaitable[Message]]
    Send = Callable[[Message], Awaitable[None]]
    Headers = tuple[tuple[bytes, bytes], ...]

_HEAD_LIMIT = 64 << 10
_HEAD_SECONDS = 10.0
_LINGER_SECONDS = 60.0


class HttpError(Exception):
    """Answer the request with this status, and `{"error": message}`."""

    def __init__(self, status: HTTPStatus, message: str, *, headers: Headers = ()) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.headers = headers


class BlamelessError(HttpError):
    """A 5xx that says nothing about the model: on probation it must not condemn it."""


class ClientGoneError(Exception):
    """The client closed the connection before it had sent the whole request."""


@dataclass(frozen=True, slots=True)
class Response:
    """A whole answer."""

    status: int
    body: bytes
    content_type: bytes = b"application/json"
    headers: Headers = ()

    @classmethod
    def json(cls, value: object, status: int = HTTPStatus.OK) -> Response:
        """An answer in JSON."""
        return cls(status, json.dumps(value, separators=(",", ":")).encode())

    @classmethod
    def error(cls, error: HttpError) -> Response:
        """The answer that an error asks for."""
        body = json.dumps({"error": error.message}).encode()
        return cls(error.status, body, headers=error.headers)

    async def send(self, send: Send) -> None:
        """Send it through ASGI."""
        headers = [
            (b"content-type", self.content_type),
            (b"content-length", b"%d" % len(self.body)),
            *self.headers,
        ]
        await send({"type": "http.response.start", "status": self.status, "headers": headers})
        await send({"type": "http.response.body", "body": self.body})


@dataclass(slots=True)
class _Body:
    """What has arrived of one body."""

    pieces: list[bytes] = field(default_factory=list)
    size: int = 0


class BodyReader:
    """Reads request bodies, bounding each one, and all that are in memory together."""

    def __init__(self, limit: int, *, total_limit: int, seconds: float) -> None:
        self._limit = limit
        self._total_limit = total_limit
        self._seconds = seconds
        self._held = 0

    @asynccontextmanager
    async def read(
        self, headers: list[tuple[bytes, bytes]], receive: Receive
    ) -> AsyncIterator[bytes]:
        """The body, decompressed, which counts as held until the block ends.

        Raises HttpError (408, 413, 415, 503), ClientGoneError, and InputError if it is not
        compressed as it says.
        """
        declared = content_length(headers)
        if declared is not None and declared > self._limit:
            raise self._too_large()
        inflater = _inflater(headers)
        body = _Body()
        try:
            try:
                async with asyncio.timeout(self._seconds):
                    await self._receive(body, receive, inflater)
            except TimeoutError as error:
                raise HttpError(
                    HTTPStatus.REQUEST_TIMEOUT,
                    f"the body did not arrive within {self._seconds:g} seconds",
                ) from error
            yield b"".join(body.pieces)
        finally:
            self._held -= body.size

    async def _receive(self, body: _Body, receive: Receive, inflater: Inflater | None) -> None:
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ClientGoneError
            if inflater is None:
                self._take(body, message["body"])
            else:
                for piece in inflater.feed(message["body"]):
                    self._take(body, piece)
                    await asyncio.sleep(0)  # others are answered while much comes out of little
            if not message["more_body"]:
                break
        if inflater is not None:
            inflater.end()

    def _take(self, body: _Body, piece: bytes) -> None:
        body.pieces.append(piece)
        body.size += len(piece)
        self._held += len(piece)
        if body.size > self._limit:
            raise self._too_large()
        if self._held > self._total_limit:
            raise BlamelessError(
                HTTPStatus.SERVICE_UNAVAILABLE,
                "too many large requests at once",
                headers=((b"retry-after", b"1"),),
            )

    def _too_large(self) -> HttpError:
        return HttpError(
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
            f"the body is over the limit of {self._limit} bytes",
        )


def _inflater(headers: list[tuple[bytes, bytes]]) -> Inflater | None:
    """What decompresses the body; raises HttpError (415) if nothing does."""
    coding = (header(headers, b"content-encoding") or b"identity").decode("latin-1").lower()
    if coding == "identity":
        return None
    if coding not in CODINGS:
        raise HttpError(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
            f"Content-Encoding {coding[:40]!r} is not supported: send gzip, deflate or none",
            headers=((b"accept-encoding", b"gzip, deflate"),),
        )
    return Inflater(coding)


def header(headers: list[tuple[bytes, bytes]], name: bytes) -> bytes | None:
    """The first header of this lower-case name."""
    for key, value in headers:
        if key == name:
            return value
    return None


def content_length(headers: list[tuple[bytes, bytes]]) -> int | None:
    """The declared length of the body; the parser has already refused what is not a number."""
    value = header(headers, b"content-length")
    return None if value is None else int(value)


class BoundedHttpProtocol(HttpToolsProtocol):
    """uvicorn's HTTP/1.1 with a bound on the size and the time of a request's head.

    A request that is refused before its body has arrived is answered at once; what still comes is
    then thrown away for a minute, because closing the connection on data that is on its way
    would make the client's kernel discard the answer.
    """

    _timer: TimerHandle | None = None
    _refused = False
    _reading_head = True
    _head_size = 0
    _body_done = True

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Give the first head its time; refuse one connection too many, because a process without
        a free descriptor cannot open its next model either."""
        super().connection_made(transport)
        most = self.config.limit_concurrency
        if most is not None and len(self.connections) >= most:
            self._write_error(HTTPStatus.SERVICE_UNAVAILABLE, "too many connections")
            transport.close()
        else:
            self._start_timer(_HEAD_SECONDS)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._stop_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse, and refuse a head that has no end."""
        if not self._listens():
            return
        self._unset_keepalive_if_required()
        try:
            self._parse(data)
        except HttpParserError:
            self.send_400_response("Invalid HTTP request received.")
        if self._reading_head:
            self._head_size += len(data)
            if self._head_size > _HEAD_LIMIT and self._listens():
                self.send_400_response(f"The request's head is over {_HEAD_LIMIT} bytes.")

    def _parse(self, data: bytes) -> None:
        """Parse, ignoring that a client would rather speak another protocol, as a server does that
        knows no other (RFC 9110, 7.8); raises HttpParserError.

        The parser takes such a head for the last of HTTP, and drops the body: another one gets the
        same head, without the wish, and then what follows.
        """
        rest = memoryview(data)
        while rest:
            try:
                self.parser.feed_data(rest)
                return
            except HttpParserUpgrade as upgrade:
                if self._ignores_head():
                    self._parse_head_again()
                rest = rest[upgrade.args[0] :]

    def _ignores_head(self) -> bool:
        """Whether the head is to be parsed again; CONNECT is an upgrade whatever its head says."""
        return bool(self.parser.should_upgrade()) and self.parser.get_method() != b"CONNECT"

    def _parse_head_again(self) -> None:
        version = self.parser.get_http_version().encode()
        lines = [b"%b %b HTTP/%b" % (self.parser.get_method(), self.url, version)]
        lines += [b"%b: %b" % pair for pair in self.headers if pair[0] != b"upgrade"]
        self.parser = HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn's
        self.parser.feed_data(b"\r\n".join([*lines, b"", b""]))

    def on_message_begin(self) -> None:
        """A head begins."""
        super().on_message_begin()
        self._reading_head, self._head_size, self._body_done = True, 0, False
        if self._timer is None:
            self._start_timer(_HEAD_SECONDS)

    def on_headers_complete(self) -> None:
        """A head is complete, and the application starts."""
        if self._ignores_head():
            return
        self._stop_timer()
        self._reading_head = False
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """A body is complete."""
        if self._ignores_head():
            return
        self._stop_timer()
        self._body_done = True
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """The answer is sent; a body that nobody waits for may go on for a while."""
        super().on_response_complete()
        if not self._body_done and not self._reading_head:
            self._start_timer(_LINGER_SECONDS)

    def send_400_response(self, msg: str) -> None:
        """Refuse what is not HTTP, in the form of every other error.

        What still comes of an endless head is thrown away for a while, as that of a body.
        """
        self._write_error(HTTPStatus.BAD_REQUEST, msg)
        if self.cycle is None or self.cycle.response_complete:  # type: ignore[redundant-expr]
            self.transport.write_eof()
            self._refused = True
            self._start_timer(_HEAD_SECONDS)
        else:
            self.transport.close()

    def _write_error(self, status: HTTPStatus, message: str) -> None:
        body = json.dumps({"error": message}).encode()
        self.transport.write(
            b"HTTP/1.1 %d %b\r\ncontent-type: application/json\r\n"
            b"content-length: %d\r\nconnection: close\r\n\r\n%b"
            % (status, status.phrase.encode(), len(body), body)
        )

    def _listens(self) -> bool:
        return not (self._refused or self.transport.is_closing())

    def _start_timer(self, seconds: float) -> None:
        self._stop_timer()
        self._timer = self.loop.call_later(seconds, self.transport.close)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
