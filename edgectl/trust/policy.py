"""How many keys each TUF role has, how many must sign, and how long metadata stays fresh."""

from __future__ import annotations

from collections.abc import Mapping  # noqa: TC003 - resolved by dataclasses
from dataclasses import dataclass, field
from datetime import timedelta

from edgectl.errors import ConfigError

ROLES = ("root", "targets", "snapshot", "timestamp")
_MAX_KEYS = 16


@dataclass(frozen=True, slots=True)
class Expiry:
    """For how long each role's metadata is valid after it was signed, in seconds."""

    root: float = 365 * 86400.0
    targets: float = 90 * 86400.0
    snapshot: float = 7 * 86400.0
    timestamp: float = 86400.0

    def of(self, role: str) -> timedelta:
        """The lifetime of one role's metadata."""
        return timedelta(seconds=getattr(self, role))


@dataclass(frozen=True, slots=True)
class KeyPolicy:
    """Keys and thresholds of a new repository; one of each where nothing is said."""

    keys: Mapping[str, int] = field(default_factory=dict)
    thresholds: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Raises ConfigError: an unknown role, or a threshold that could never be met."""
        for role in (*self.keys, *self.thresholds):
            if role not in ROLES:
                raise ConfigError(f"{role!r} is not a role", hint=f"one of {', '.join(ROLES)}")
        for role in ROLES:
            if not 1 <= self.threshold(role) <= self.number(role) <= _MAX_KEYS:
                raise ConfigError(
                    f"{role}: {self.threshold(role)} of {self.number(role)} keys cannot be",
                    hint=f"1 <= threshold <= keys <= {_MAX_KEYS}; "
                    "for example --threshold root=2 --keys root=3",
                )

    def number(self, role: str) -> int:
        """How many keys a role has: as many as must sign unless more are asked for."""
        return self.keys.get(role, self.thresholds.get(role, 1))

    def threshold(self, role: str) -> int:
        """How many of them must sign."""
        return self.thresholds.get(role, 1)
