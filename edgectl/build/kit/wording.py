"""How a refusal words what it shows."""

from __future__ import annotations


def first_line(error: Exception) -> str:
    """What an error of a library says, without the rest of its report."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    return (lines[0].strip() if lines else type(error).__name__)[:300]


def listed(names: list[str]) -> str:
    """Names, quoted and in their order; `none` if there are none."""
    return ", ".join(repr(name) for name in names) or "none"
