"""Bodies as they arrive: bounded each and together, compressed or not."""

from __future__ import annotations

import asyncio
import gzip
import zlib
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgectl.engine.errors import InputError
from edgectl.serve.http import BlamelessError, BodyReader, HttpError
from edgectl.serve.inflate import Inflater

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


def _receiver(*chunks: bytes) -> Callable[[], Awaitable[dict[str, Any]]]:
    left = list(chunks)

    async def receive() -> dict[str, Any]:
        chunk = left.pop(0)
        return {"type": "http.request", "body": chunk, "more_body": bool(left)}

    return receive


def _reader(limit: int, total: int) -> BodyReader:
    return BodyReader(limit, total_limit=total, seconds=60)


@given(data=st.binary(max_size=2000), repeated=st.sampled_from([1, 700]), step=st.integers(1, 5000))
@pytest.mark.parametrize(
    ("coding", "compress"), [("gzip", gzip.compress), ("deflate", zlib.compress)]
)
def test_what_was_compressed_comes_back_however_it_arrives(
    coding: str, compress: Callable[[bytes], bytes], data: bytes, repeated: int, step: int
) -> None:
    whole = data * repeated
    sent = compress(whole)
    inflater = Inflater(coding)
    pieces = [p for at in range(0, len(sent), step) for p in inflater.feed(sent[at : at + step])]
    inflater.end()
    assert b"".join(pieces) == whole
    assert all(0 < len(piece) <= 256 << 10 for piece in pieces)


@pytest.mark.parametrize(
    ("sent", "words"),
    [
        (b"hello", "not deflate"),
        (gzip.compress(b"hello"), "not deflate"),
        (zlib.compress(b"hello")[:-1], "cut short"),
        (b"", "cut short"),
        (zlib.compress(b"hello") + b"x", "follow the end"),
    ],
    ids=["plain", "gzip", "cut", "nothing", "more"],
)
def test_what_is_not_whole_is_refused(sent: bytes, words: str) -> None:
    inflater = Inflater("deflate")
    with pytest.raises(InputError, match=words):  # noqa: PT012 - either may raise
        list(inflater.feed(sent))
        inflater.end()


def test_little_that_becomes_much_is_stopped_at_the_limit() -> None:
    async def scenario() -> None:
        bomb = gzip.compress(b"\0" * (64 << 20))
        headers = [(b"content-encoding", b"gzip")]
        async with _reader(1 << 20, 4 << 20).read(headers, _receiver(bomb)):
            pytest.fail("it was read")

    with pytest.raises(HttpError) as refused:
        asyncio.run(scenario())
    assert refused.value.status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE


def test_a_body_counts_until_its_request_is_answered() -> None:
    async def scenario() -> None:
        reader = _reader(10, 15)
        async with reader.read([], _receiver(b"12345", b"67890")) as body:
            assert body == b"1234567890"
            with pytest.raises(BlamelessError) as refused:
                async with reader.read([], _receiver(b"1234567890")):
                    pytest.fail("it was read")
            assert refused.value.status == HTTPStatus.SERVICE_UNAVAILABLE
            async with reader.read([], _receiver(b"12345")) as small:
                assert small == b"12345"
        async with reader.read([], _receiver(b"1234567890")):
            pass

    asyncio.run(scenario())
