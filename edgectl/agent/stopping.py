"""Being asked to stop: work ends where it is, and the state machine takes care of the rest."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from threading import Event


class Stopped(Exception):  # noqa: N818 - not an error: somebody asked for it
    """The agent was asked to stop in the middle of something."""


def pause(seconds: float, stop: Event) -> None:
    """Wait, unless asked to stop: raises Stopped."""
    if stop.wait(seconds):
        raise Stopped
