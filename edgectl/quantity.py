"""Quantities as the field spells them: `512Mi`, `20ms`, `30m`, `15W`."""

from __future__ import annotations

import re

_QUANTITY = re.compile(r"(\d+(?:\.\d+)?)\s*([A-Za-z]*)")

_BYTES = {
    "": 1,
    "B": 1,
    "k": 10**3,
    "K": 10**3,
    "M": 10**6,
    "G": 10**9,
    "T": 10**12,
    "Ki": 2**10,
    "Mi": 2**20,
    "Gi": 2**30,
    "Ti": 2**40,
}
_SECONDS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_WATTS = {"mW": 1e-3, "W": 1.0}


def _parse(text: str, units: dict[str, float] | dict[str, int], what: str, example: str) -> float:
    match = _QUANTITY.fullmatch(text.strip())
    if match is None or match[2] not in units:
        known = ", ".join(unit for unit in units if unit)
        raise ValueError(f"{text!r} is not {what}: write a number and one of {known} ({example})")
    return float(match[1]) * units[match[2]]


def parse_bytes(text: str) -> int:
    """Bytes of `512Mi` (binary) or `2G` (decimal), Kubernetes' spelling; ValueError otherwise."""
    value = _parse(text, _BYTES, "a size", "for example 512Mi")
    if not value.is_integer():
        raise ValueError(f"{text!r} is not a whole number of bytes")
    return int(value)


def parse_seconds(text: str) -> float:
    """Seconds of `20ms`, `30m` or `1h30m`; ValueError otherwise."""
    parts = re.findall(r"\d+(?:\.\d+)?[A-Za-z]+", text.strip())
    if len(parts) > 1 and "".join(parts) == text.strip():
        return sum(parse_seconds(part) for part in parts)
    return _parse(text, _SECONDS, "a duration", "for example 20ms or 30m")


def parse_watts(text: str) -> float:
    """Watts of `15W` or `500mW`; ValueError otherwise."""
    return _parse(text, _WATTS, "a power", "for example 15W")


def format_bytes(count: float) -> str:
    """`1536` as `1.5 KiB`, for people."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(count) < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


def format_seconds(seconds: float) -> str:
    """`0.0123` as `12.3 ms`, for people."""
    if seconds < 1e-3:
        return f"{seconds * 1e6:.0f} µs"
    if seconds < 1:
        return f"{seconds * 1e3:.1f} ms"
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min"
