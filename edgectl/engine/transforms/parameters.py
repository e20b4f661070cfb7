"""Checks of transform parameters. Each raises ValueError that says what would be right."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence


def whole(name: str, value: Any, *, least: int = 1, most: int | None = None) -> None:
    """A whole number within bounds (a bool is none)."""
    bounds = f"from {least} to {most}" if most is not None else f"of at least {least}"
    if type(value) is not int or value < least or (most is not None and value > most):
        raise ValueError(f"parameter {name!r} must be a whole number {bounds}, not {value!r}")


def number(name: str, value: Any) -> None:
    """A finite int or float."""
    if type(value) not in (int, float) or not math.isfinite(value):
        raise ValueError(f"parameter {name!r} must be a number, not {value!r}")


def flag(name: str, value: Any) -> None:
    """True or false."""
    if type(value) is not bool:
        raise ValueError(f"parameter {name!r} must be true or false, not {value!r}")


def choice(name: str, value: Any, allowed: Sequence[str]) -> None:
    """One of a few words."""
    if value not in allowed:
        raise ValueError(f"parameter {name!r} must be one of {', '.join(allowed)}, not {value!r}")


def per_channel(name: str, value: Any) -> tuple[float, ...]:
    """One number for all channels or a list with one for each, as a tuple."""
    values = tuple(value) if isinstance(value, list | tuple) else (value,)
    if not values:
        raise ValueError(f"parameter {name!r} must not be empty")
    for item in values:
        number(name, item)
    return values
