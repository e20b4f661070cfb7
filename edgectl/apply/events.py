"""What an apply tells while it runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgectl.plan.step import Step


def _ignore(*_: Any) -> None:
    """Nobody listens."""


@dataclass(frozen=True, slots=True)
class Events:
    """Callbacks, called from worker threads."""

    on_start: Callable[[Step], None] = _ignore
    """A step that is not cached begins."""
    on_progress: Callable[[Step, float, str], None] = _ignore
    """A step, how far it is (0 to 1), and what it does."""
    on_end: Callable[[Step, str], None] = _ignore
    """A step, and how it ended: done, cached, failed, blocked."""
