"""Request bodies that come compressed: `Content-Encoding: gzip` or `deflate` (RFC 9110, 8.4.1)."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING

from edgectl.engine.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator

CODINGS = {"gzip": 16 + zlib.MAX_WBITS, "x-gzip": 16 + zlib.MAX_WBITS, "deflate": zlib.MAX_WBITS}
"""What zlib calls the window bits of each; `deflate` is zlib's own format."""
_PIECE = 256 << 10


class Inflater:
    """Decompresses one body as it arrives, a piece at a time: a kilobyte of it can be a megabyte,
    and whoever reads it is to stop when that is too much."""

    def __init__(self, coding: str) -> None:
        self._coding = coding
        self._inflate = zlib.decompressobj(CODINGS[coding])

    def feed(self, data: bytes) -> Iterator[bytes]:
        """What some more of the body gives, in pieces of at most 256 KiB; raises InputError."""
        while data or not self._inflate.eof:
            if self._inflate.eof:
                raise InputError(f"bytes follow the end of the {self._coding} body")
            try:
                piece = self._inflate.decompress(data, _PIECE)
            except zlib.error as error:
                raise InputError(f"the body is not {self._coding}: {error}") from error
            data = self._inflate.unconsumed_tail or self._inflate.unused_data
            if piece:
                yield piece
            if not data and len(piece) < _PIECE:
                return

    def end(self) -> None:
        """All of the body has arrived; raises InputError if there is more to come."""
        if not self._inflate.eof:
            raise InputError(f"the {self._coding} body is cut short")
