"""What can go wrong with one request to the test registry."""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from email.message import Message
    from io import BufferedIOBase


class Exchange(Protocol):
    """One request that is being answered, as far as a fault may meddle with it."""

    path: str
    headers: Message
    wfile: BufferedIOBase
    stopping: threading.Event

    def drain(self) -> bytes:
        """The request's body."""
        ...

    def send(self, answer: Answer) -> None:
        """Send a response."""
        ...

    def hang_up(self) -> None:
        """Close the connection after this request."""
        ...


@dataclass(frozen=True)
class Answer:
    """A response before it is sent."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    length: int | None = None
    """What `Content-Length` says, if not the length of the body; -1: there is none."""


class Fault(Protocol):
    """Something that goes wrong with one request."""

    def apply(self, handler: Exchange, answer: Callable[[], Answer]) -> None:
        """Answer the request wrongly; `answer()` is the right answer, and has its effect."""
        ...


@dataclass(frozen=True)
class Status(Fault):
    """Refuse with a status: 429, 503 and `retry_after`, 404 (withheld), 405, 500, 507, …"""

    status: int
    retry_after: str | float | None = None
    code: str = "UNKNOWN"
    message: str = "fault on demand"

    def apply(self, handler: Exchange, answer: Callable[[], Answer]) -> None:
        headers = {} if self.retry_after is None else {"Retry-After": str(self.retry_after)}
        handler.drain()
        handler.send(error(self.status, self.code, self.message, headers))


@dataclass(frozen=True)
class Drop(Fault):
    """Close the connection after so many bytes of the body."""

    after: int

    def apply(self, handler: Exchange, answer: Callable[[], Answer]) -> None:
        right = answer()
        handler.send(Answer(right.status, right.headers, right.body[: self.after], len(right.body)))
        handler.hang_up()


@dataclass(frozen=True)
class LyingLength(Fault):
    """Say another Content-Length than what is sent."""

    length: int

    def apply(self, handler: Exchange, answer: Callable[[], Answer]) -> None:
        right = answer()
        handler.send(Answer(right.status, right.headers, right.body, self.length))
        handler.hang_up()


@dataclass(frozen=True)
class Endless(Fault):
    """Send the right body and then zeros, until the client goes away; `sent` counts bytes."""

    limit: int = 1 << 30
    sent: list[int] = field(default_factory=lambda: [0])
    over: threading.Event = field(default_factory=threading.Event)
    """Set when the client has gone away."""

    def apply(self, handler: Exchange, answer: Callable[[], Answer]) -> None:
        right = answer()
        handler.send(Answer(right.status, {**right.headers, "Connection": "close"}, b"", -1))
        handler.hang_up()
        chunk = right.body
        try:
            while self.sent[0] < self.limit:
                handler.wfile.write(chunk)
                self.sent[0] += len(chunk)
                chunk = bytes(1 << 16)
        finally:
            self.over.set()


@dataclass(frozen=True)
class Changed(Fault):
    """Flip one bit of the body."""

    offset: int = 0

    def apply(self, handler: Exchange, answer: Callable[[], Answer]) -> None:
        right = answer()
        body = bytearray(right.body)
        body[self.offset] ^= 1
        handler.send(Answer(right.status, right.headers, bytes(body)))


@dataclass(frozen=True)
class IgnoreRange(Fault):
    """Answer a Range request with 200 and the whole."""

    def apply(self, handler: Exchange, answer: Callable[[], Answer]) -> None:
        del handler.headers["Range"]
        handler.send(answer())


@dataclass(frozen=True)
class Trickle(Fault):
    """Send a few bytes, then wait, over and over."""

    count: int = 1
    seconds: float = 0.05

    def apply(self, handler: Exchange, answer: Callable[[], Answer]) -> None:
        right = answer()
        handler.send(Answer(right.status, right.headers, b"", len(right.body)))
        for start in range(0, len(right.body), self.count):
            if handler.stopping.wait(self.seconds):
                break
            handler.wfile.write(right.body[start : start + self.count])


@dataclass(frozen=True)
class Redirect(Fault):
    """Send the client to another address, as registries with blob storage behind them do."""

    location: str
    """`http://host:port` before the path, or the whole URL."""
    status: int = 307
    whole: bool = False

    def apply(self, handler: Exchange, answer: Callable[[], Answer]) -> None:
        handler.drain()
        right = answer()
        if right.status == 401:
            handler.send(right)
            return
        target = self.location if self.whole else self.location + handler.path
        handler.send(Answer(self.status, {"Location": target}))


@dataclass(frozen=True)
class Hang(Fault):
    """Close the connection without an answer."""

    def apply(self, handler: Exchange, answer: Callable[[], Answer]) -> None:
        handler.drain()
        handler.hang_up()


@dataclass(frozen=True)
class Silence(Fault):
    """Never answer."""

    def apply(self, handler: Exchange, answer: Callable[[], Answer]) -> None:
        handler.stopping.wait()
        handler.hang_up()


@dataclass(frozen=True)
class Terse(Fault):
    """Leave out the digest, as some registries' HEAD does."""

    def apply(self, handler: Exchange, answer: Callable[[], Answer]) -> None:
        right = answer()
        headers = {n: v for n, v in right.headers.items() if n != "Docker-Content-Digest"}
        handler.send(Answer(right.status, headers, right.body))


@dataclass(frozen=True)
class Replaced(Fault):
    """Answer 200 with another body."""

    body: bytes

    def apply(self, handler: Exchange, answer: Callable[[], Answer]) -> None:
        handler.drain()
        handler.send(Answer(200, {}, self.body))


@dataclass(frozen=True)
class After(Fault):
    """Answer rightly, after something else has happened."""

    event: Callable[[], None]

    def apply(self, handler: Exchange, answer: Callable[[], Answer]) -> None:
        right = answer()
        self.event()
        handler.send(right)


def error(status: int, code: str, message: str, headers: Mapping[str, str] | None = None) -> Answer:
    return json_answer(status, {"errors": [{"code": code, "message": message}]}, headers)


def json_answer(status: int, value: Any, headers: Mapping[str, str] | None = None) -> Answer:
    return Answer(
        status, {"Content-Type": "application/json", **(headers or {})}, json.dumps(value).encode()
    )
