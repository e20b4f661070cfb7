"""Whether each toolchain is ready here, can be made, or cannot, and why."""

from __future__ import annotations

import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgectl.build import toolchain
from edgectl.errors import ToolchainError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from edgectl.build.builder import Builder

READY = "ready"
INSTALLABLE = "installable"
IMPOSSIBLE = "impossible"

_AT_ONCE = 4


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What can be said of one toolchain on this machine."""

    builder: Builder
    state: str
    """`ready`, `installable` or `impossible`."""
    reason: str = ""
    """Why it is impossible."""
    hint: str = ""
    """What would make it possible."""

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        return {
            "builder": self.builder.name,
            "description": self.builder.description,
            "state": self.state,
            "formats": list(self.builder.formats),
            "takes": list(self.builder.takes),
            "engines": list(self.builder.engines),
            "reason": self.reason,
            "hint": self.hint,
            "leaves": dict(self.builder.leaves),
        }


def diagnose(builders: Iterable[Builder], *, cache: Path | None = None) -> list[Diagnosis]:
    """Look at every toolchain; installs nothing.

    One that is not there is resolved against the package index, so that what is said to be
    installable has a wheel of every package for this Python and platform.
    """
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        return list(pool.map(lambda builder: _diagnose(builder, cache), builders))


def _diagnose(builder: Builder, cache: Path | None) -> Diagnosis:
    if toolchain.is_ready(builder, cache=cache):
        return Diagnosis(builder, READY)
    with tempfile.TemporaryDirectory(prefix="edgectl-doctor-") as scratch:
        try:
            toolchain.resolve(builder, scratch)
        except ToolchainError as error:
            return Diagnosis(builder, IMPOSSIBLE, error.message, error.hint or "")
    return Diagnosis(builder, INSTALLABLE)
