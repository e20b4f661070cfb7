"""One agent per state directory."""

from __future__ import annotations

import contextlib
import fcntl
import os
from typing import TYPE_CHECKING

from edgectl.errors import BusyError
from edgectl.oci.filesystem import storage_errors

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@contextlib.contextmanager
def lock(directory: Path) -> Iterator[None]:
    """Hold the state directory's lock, made first if it is absent; raises BusyError if it is held.

    `flock` belongs to the open file: the kernel lets go of it however the process ends, so no
    stale lock outlives a crash. The process id in the file is for the message alone.
    """
    with storage_errors(f"opening {directory}"):
        directory.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(directory / "agent.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip() or "unknown"
            raise BusyError(
                f"another agent (process {holder}) is at work in {directory}",
                hint="wait for it, or stop it: two agents must not share a state directory",
            ) from None
        with contextlib.suppress(OSError):  # a full disk must not keep the agent from its work
            os.pwrite(descriptor, f"{os.getpid():<10}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)
