"""Content digests and the canonical JSON that they are taken over."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_HEX64 = re.compile(r"[0-9a-f]{64}")
_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True, order=True)
class Digest:
    """A sha256 content digest, parsed once (OCI image-spec, descriptor.md, "Digests").

    edgectl writes and accepts `sha256` alone: it is what every registry serves and cosign signs.
    """

    hex: str

    def __post_init__(self) -> None:
        if not _HEX64.fullmatch(self.hex):
            raise ValueError(f"not a sha256 hex digest: {self.hex[:80]!r}")

    @classmethod
    def parse(cls, text: str) -> Digest:
        """Parse `sha256:<64 lower-case hex>`; raises ValueError on anything else."""
        algorithm, separator, value = text.partition(":")
        if not separator or algorithm != "sha256":
            raise ValueError(f"not a sha256 digest: {text[:80]!r}")
        return cls(value)

    @classmethod
    def of(cls, data: bytes) -> Digest:
        """Digest of bytes in memory."""
        return cls(hashlib.sha256(data).hexdigest())

    @classmethod
    def of_file(cls, path: Path) -> Digest:
        """Digest of a file, read in constant memory."""
        hasher = hashlib.sha256()
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                hasher.update(chunk)
        return cls(hasher.hexdigest())

    @classmethod
    def of_tree(cls, directory: Path) -> Digest:
        """Digest of a directory: of the canonical JSON of each file's relative path and digest.

        Empty directories, times and permissions do not count.
        """
        files = sorted(path for path in directory.rglob("*") if path.is_file())
        return cls.of_files(
            {path.relative_to(directory).as_posix(): cls.of_file(path) for path in files}
        )

    @classmethod
    def of_files(cls, files: Mapping[str, Digest]) -> Digest:
        """Digest of a directory, given the digests of its files by relative path."""
        return cls.of(canonical_json({name: str(digest) for name, digest in files.items()}))

    @property
    def short(self) -> str:
        """The first twelve hex digits, for people."""
        return self.hex[:12]

    def __str__(self) -> str:
        return f"sha256:{self.hex}"


def canonical_json(value: Any) -> bytes:
    """Encode as JSON that is equal for equal values: sorted keys, no white space, UTF-8.

    Raises ValueError on NaN and infinities, which JSON cannot say, and TypeError on values that
    are not JSON.
    """
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    ).encode()
