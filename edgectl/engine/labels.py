"""The `labels.csv` of a directory of labelled samples.

Apart from `edgectl.engine.samples`, so that the agent reads it without numpy.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgectl.engine.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path

LABELS_FILE = "labels.csv"

_MAX_SAMPLES = 100_000


@dataclass(frozen=True, slots=True)
class Sample:
    """A file and the answer that is right for it."""

    file: Path
    label: str


def read_samples(directory: Path) -> list[Sample]:
    """Read `labels.csv`.

    Raises InputError if it is missing or malformed, names no samples, or names a file that is
    missing or outside the directory.
    """
    table = directory / LABELS_FILE
    try:
        with table.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file, strict=True))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"cannot read {table}: {error}") from error
    if not rows or len(rows) > _MAX_SAMPLES or not {"file", "label"} <= rows[0].keys():
        raise InputError(f"{table} must have the columns file and label, and at least one row")
    return [_sample(directory, number, row) for number, row in enumerate(rows, start=2)]


def _sample(directory: Path, number: int, row: dict[str, str | None]) -> Sample:
    name, label = row["file"], row["label"]
    if not name or not label:
        raise InputError(f"{directory / LABELS_FILE}, line {number}: file or label is empty")
    file = directory / name
    if not file.resolve().is_relative_to(directory.resolve()) or not file.is_file():
        raise InputError(f"{directory / LABELS_FILE}, line {number}: no file {name!r} in here")
    return Sample(file, label)
