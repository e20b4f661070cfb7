"""Content digests and the canonical JSON that they are taken over."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

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

        Empty directories, times and permissions do not count. A link to a file counts as the
        file; one to a directory as the place it leads to, below which the files count. Raises
        OSError for what cannot be read, is neither file nor directory, has a name that is not
        UTF-8, or is a link that leads out: builders refuse those, or read what no digest covers.
        """
        root = directory.resolve()
        return cls.of(
            canonical_json({_name(path, root): cls._entry(path, root) for path in _entries(root)})
        )

    @classmethod
    def _entry(cls, path: Path, root: Path) -> str:
        """What a file or link below a directory counts as."""
        # Not `resolve`, which raises what is no OSError where links go in circles.
        target = Path(os.path.realpath(path))
        if root not in target.parents:
            raise _unfit(path, root, "a link that leads out of it: copy there what it leads to")
        if target.is_dir():
            return f"link:{_name(target, root)}"
        if not target.is_file():
            raise _unfit(path, root, "which is neither a file nor a directory: remove it")
        return str(cls.of_file(path))

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


def _entries(root: Path) -> Iterator[Path]:
    """Every file below a directory, and every link."""
    for here, directories, files in os.walk(root, onerror=_fail):
        below = (Path(here, name) for name in directories)
        yield from (path for path in below if path.is_symlink())
        yield from (Path(here, name) for name in files)


def _fail(error: OSError) -> NoReturn:
    raise error


def _name(path: Path, root: Path) -> str:
    """The relative path that stands in a directory's digest."""
    name = path.relative_to(root).as_posix()
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise _unfit(path, root, "whose name is not UTF-8: rename it") from error
    return name


def _unfit(path: Path, root: Path, what: str) -> OSError:
    """The error for what no directory's digest can say."""
    return OSError(errno.EINVAL, f"it holds {path.relative_to(root).as_posix()!r}, {what}")


def canonical_json(value: Any) -> bytes:
    """Encode as JSON that is equal for equal values: sorted keys, no white space, UTF-8.

    Raises ValueError on NaN and infinities, which JSON cannot say, and TypeError on values that
    are not JSON.
    """
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    ).encode()
