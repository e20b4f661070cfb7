"""Whether an agent was trying a slot when it ended: `<state>/trying`, an empty file.

An agent that is killed leaves it behind. One that ends by itself removes it, for which there is
always room: on a disk that is full, the database goes on saying that the slot is being tried.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgectl.oci.filesystem import storage_errors, sync_directory

if TYPE_CHECKING:
    from pathlib import Path

_FILE = "trying"


def begin(state: Path) -> None:
    """Note durably that a slot is being tried; raises StorageFullError and StorageError."""
    path = state / _FILE
    with storage_errors(f"writing {path}"):
        if not path.exists():
            path.touch()
            sync_directory(state)


def end(state: Path) -> None:
    """Note durably that none is; raises StorageError."""
    path = state / _FILE
    with storage_errors(f"removing {path}"):
        if path.exists():
            path.unlink()
            sync_directory(state)


def was_cut_short(state: Path) -> bool:
    """Whether the agent that tried a slot was killed, or the power was cut."""
    return (state / _FILE).exists()
