"""What failed on this device, once more as files: `<state>/failed/<hex>`, beside the slots.

The database knows it, and is the one that is asked. These are for the day that it is lost: what
failed for good must not be tried again because of that.
"""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING

from edgectl.agent.state import Failed
from edgectl.digest import Digest, canonical_json
from edgectl.oci.filesystem import storage_errors, write_atomic

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

_DIRECTORY = "failed"
_LIMIT = 1 << 16

_log = logging.getLogger(__name__)


def keep(state: Path, failures: Iterable[Failed]) -> None:
    """Mark what is not marked yet; raises StorageFullError and StorageError."""
    directory = state / _DIRECTORY
    with storage_errors(f"writing to {directory}"):
        directory.mkdir(exist_ok=True)
        for failed in failures:
            path = directory / failed.digest.hex
            if not path.exists():
                value = {"kind": failed.kind, "reason": failed.reason, "at": int(failed.at)}
                write_atomic(path, canonical_json(value))


def recall(state: Path) -> tuple[Failed, ...]:
    """Everything that is marked. The name of a mark is what counts: one that is damaged still rules
    out its digest. Raises StorageError."""
    directory = state / _DIRECTORY
    with storage_errors(f"reading {directory}"):
        paths = sorted(directory.iterdir()) if directory.is_dir() else []
    return tuple(failed for path in paths if (failed := _read(path)) is not None)


def _read(path: Path) -> Failed | None:
    try:
        digest = Digest(path.name)
    except ValueError:
        return None  # what an interrupted write left
    try:
        with path.open("rb") as file:
            value = json.loads(file.read(_LIMIT))
        return Failed(digest, str(value["kind"]), str(value["reason"]), float(value["at"]))
    except (OSError, ValueError, TypeError, LookupError) as error:
        _log.warning("mark=%s problem=%s", path, error)
        return Failed(digest, "slot", "it failed here before, and why is lost")
