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


def fraction(name: str, value: Any) -> None:
    """A number from 0 to 1."""
    if type(value) not in (int, float) or not 0 <= value <= 1:
        raise ValueError(f"parameter {name!r} must be a number from 0 to 1, not {value!r}")


def positive(name: str, value: Any) -> None:
    """A finite number above 0."""
    number(name, value)
    if value <= 0:
        raise ValueError(f"parameter {name!r} must be above 0, not {value!r}")


def text(name: str, value: Any) -> None:
    """A text that is not empty."""
    if not isinstance(value, str) or not value:
        raise ValueError(f"parameter {name!r} must be a name, not {value!r}")


def file_name(name: str, value: Any) -> None:
    """The plain name of a file that lies beside the model: no folders, nothing hidden."""
    fine = isinstance(value, str) and 0 < len(value) <= 128 and not value.startswith(".")
    if not fine or any(character in "/\\:\0" for character in value):
        raise ValueError(
            f"parameter {name!r} must be the plain name of a file beside the model, not {value!r}"
        )
