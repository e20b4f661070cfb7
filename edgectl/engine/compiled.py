"""What an engine compiled on this machine, kept in a directory by what it was made of.

An entry's name is a digest of all that decides its content, so that it is never out of date: what
changes is another entry. It has its name once all of it is on disk.
"""

from __future__ import annotations

import hashlib
import json
import os
from typing import TYPE_CHECKING, Any

from edgectl.engine.errors import EngineError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_TEMPORARY = ".new"


def entry_key(parts: Mapping[str, str]) -> str:
    """The name of an entry: SHA-256 of what it is made of, as canonical JSON."""
    text = json.dumps(dict(parts), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def model_digest(model: Path) -> str:
    """SHA-256 of a model file and the files whose names begin with its own (external data)."""
    digest = hashlib.sha256()
    for path in sorted(model.parent.glob(f"{model.name}*")):
        with path.open("rb") as file:
            part = hashlib.file_digest(file, "sha256").digest()
        digest.update(path.name.encode() + b"\0" + part)
    return digest.hexdigest()


def write_entry(path: Path, data: bytes | memoryview | Any) -> None:
    """Write a file durably, complete or not at all, from anything with a buffer.

    Raises EngineError if the disk is full or cannot be written.
    """
    temporary = path.with_name(f"{path.name}{_TEMPORARY}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            file.write(memoryview(data))
            file.flush()
            os.fsync(file.fileno())
        temporary.rename(path)
        directory = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise EngineError(f"cannot keep what was compiled in {path}: {error.strerror}") from error


def keep_only(path: Path) -> None:
    """Remove the entries beside one that have its suffix: those of another version, or half
    written. What cannot be removed is left: it is used by nobody."""
    for other in path.parent.glob(f"*{path.suffix}*"):
        if other != path:
            try:
                other.unlink()
            except OSError:
                continue  # another process removes it too, or it is not ours to remove
