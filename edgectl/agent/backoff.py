"""When to try again: exponential backoff with full jitter.

Full jitter spreads a fleet that lost its registry at one moment evenly over the whole delay
("Exponential Backoff And Jitter", AWS Architecture Blog, 2015).
"""

from __future__ import annotations

BASE = 5.0
"""Seconds: the longest first delay."""
CAP = 3600.0
"""Seconds: no delay is longer, whatever the other side asks for."""


def delay(attempts: int, uniform: float, *, retry_after: float | None = None) -> float:
    """Seconds to wait after `attempts` failures in a row.

    `uniform` is a random number from 0 to 1. What the other side asked for (`Retry-After`) is the
    least, with up to a quarter more, so that those who were told the same do not return together.
    """
    jittered = min(CAP, BASE * 2.0 ** min(max(attempts - 1, 0), 30)) * uniform
    if retry_after is None:
        return jittered
    return min(CAP, max(jittered, retry_after * (1 + uniform / 4)))


def remaining(not_before: float, now: float) -> float:
    """Seconds left until a persisted wall-clock time, never more than CAP.

    The clock may have been set back since (to 1970, on a device without a battery): a time
    further ahead than any delay can be is not believed.
    """
    left = not_before - now
    return left if 0 < left <= CAP else 0.0
