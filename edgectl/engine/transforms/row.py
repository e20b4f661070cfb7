"""Rows of a table, as JSON or CSV text, to numbers."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgectl.engine.errors import InputError
from edgectl.engine.transforms import parameters

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

_MAX_COLUMNS = 4096
_KEYS = ("name", "values", "missing", "unknown", "onehot")


@dataclass(frozen=True, slots=True)
class Row:
    """One row of JSON or CSV text to float64 [width], or, with `steps`, as many rows to
    [steps, width].

    `columns` are names of numbers, or mappings: `{name, values: [red, green]}` is a category,
    whose number is its place among `values`, or, with `onehot: true`, as many numbers of which
    one is 1. `missing` is the number or value that stands for an empty one, `unknown` the value
    for a category that is not declared; without them both are refused.

    JSON is an object by column name, whose other keys are left alone, or a list in the columns'
    order; of `steps` rows, a list of those. CSV has a first line of names, or the columns' order.
    """

    columns: Any
    steps: int = 0
    max_bytes: int = 1 << 20

    def __post_init__(self) -> None:
        if not isinstance(self.columns, list | tuple) or not 0 < len(self.columns) <= _MAX_COLUMNS:
            raise ValueError(f"parameter 'columns' must be a list of 1 to {_MAX_COLUMNS} columns")
        names = [column.name for column in self._columns()]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"parameter 'columns' has {twice[0]!r} twice")
        parameters.whole("steps", self.steps, least=0, most=1 << 16)
        parameters.whole("maxBytes", self.max_bytes)

    def shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape after this transform."""
        width = sum(column.width for column in self._columns())
        return (self.steps, width) if self.steps else (width,)

    def apply(self, encoded: bytes) -> NDArray[Any]:
        """Read; raises InputError that names the column and the value that is wrong."""
        import numpy as np

        if len(encoded) > self.max_bytes:
            raise InputError(f"the row has {len(encoded)} bytes, more than {self.max_bytes}")
        try:
            text = encoded.decode("utf-8-sig").strip()
        except UnicodeDecodeError as error:
            raise InputError("the row is not UTF-8 text") from error
        try:
            made = np.array(self._rows(text), np.float64)
        except RecursionError as error:
            raise InputError("the row is nested too deeply") from error
        return made if self.steps else made[0]

    def _rows(self, text: str) -> list[list[float]]:
        columns = self._columns()
        rows = self._json(text) if text[:1] in ("{", "[") else _csv(text, columns)
        wanted = self.steps or 1
        if len(rows) != wanted:
            raise InputError(f"there are {len(rows)} rows, but the model takes {wanted}")
        return [_numbers(columns, row) for row in rows]

    def _json(self, text: str) -> Sequence[Any]:
        try:
            value = json.loads(text)
        except ValueError as error:
            raise InputError(f"the row is not valid JSON: {error}") from error
        if self.steps and not isinstance(value, list):
            raise InputError(f"the model takes a list of {self.steps} rows, not an object")
        return value if self.steps else [value]

    def _columns(self) -> list[_Column]:
        return [_Column.read(declared) for declared in self.columns]


@dataclass(frozen=True, slots=True)
class _Column:
    name: str
    values: tuple[str, ...] = ()
    missing: Any = None
    unknown: str | None = None
    onehot: bool = False

    @classmethod
    def read(cls, declared: Any) -> _Column:
        if isinstance(declared, str):
            declared = {"name": declared}
        if not isinstance(declared, Mapping) or "name" not in declared:
            raise ValueError(
                f"parameter 'columns': a column is a name or a mapping with one, not {declared!r}"
            )
        if unknown := sorted(set(declared) - set(_KEYS)):
            raise ValueError(
                f"parameter 'columns': a column has no {unknown[0]!r}; known are {', '.join(_KEYS)}"
            )
        parameters.text("name", declared["name"])
        given = dict(declared)
        given["values"] = tuple(_names(declared["name"], declared.get("values", ())))
        column = cls(**given)
        column.check()
        return column

    def check(self) -> None:
        """Raises ValueError for what contradicts itself."""
        parameters.flag("onehot", self.onehot)
        if not self.values:
            if self.onehot or self.unknown is not None:
                raise ValueError(
                    f"column {self.name!r}: 'onehot' and 'unknown' are for columns with 'values'"
                )
            if self.missing is not None:
                parameters.number("missing", self.missing)
            return
        for parameter in ("missing", "unknown"):
            value = getattr(self, parameter)
            if value is not None and value not in self.values:
                raise ValueError(
                    f"column {self.name!r}: {parameter!r} must be one of its values, not {value!r}"
                )

    @property
    def width(self) -> int:
        """How many numbers it becomes."""
        return len(self.values) if self.onehot else 1

    def numbers(self, value: Any) -> list[float]:
        """The number or numbers of a value; raises InputError."""
        if value is None or value == "" or (isinstance(value, float) and math.isnan(value)):
            if self.missing is None:
                raise InputError(f"column {self.name!r} is missing")
            value = self.missing
        if not self.values:
            return [self._number(value)]
        place = self._place(value)
        if not self.onehot:
            return [float(place)]
        return [float(number == place) for number in range(len(self.values))]

    def _number(self, value: Any) -> float:
        try:
            if not isinstance(value, int | float | str) or (
                isinstance(value, str) and "_" in value
            ):
                raise ValueError
            number = float(value)
        except (ValueError, OverflowError):
            raise InputError(f"column {self.name!r}: {_brief(value)} is not a number") from None
        if math.isnan(number):
            return self.numbers(None)[0]
        if math.isinf(number):
            raise InputError(f"column {self.name!r} is infinite")
        return number

    def _place(self, value: Any) -> int:
        text = _text(value)
        if text not in self.values:
            if self.unknown is None:
                some = ", ".join(self.values[:8]) + (", …" if len(self.values) > 8 else "")
                raise InputError(f"column {self.name!r}: {_brief(value)} is not one of {some}")
            text = self.unknown
        return self.values.index(text)


def _names(column: str, values: Any) -> list[str]:
    """Categories as texts: YAML reads some, such as 1 and true, as what they look like."""
    if not isinstance(values, list | tuple):
        raise ValueError(f"column {column!r}: 'values' must be a list")  # noqa: TRY004 - as all
    names = [_text(value) for value in values]
    if len(set(names)) != len(names):
        raise ValueError(f"column {column!r}: a value is there twice")
    return names


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _csv(text: str, columns: Sequence[_Column]) -> list[Any]:
    try:
        lines = [
            line
            for line in csv.reader(io.StringIO(text), strict=True, skipinitialspace=True)
            if line
        ]
    except csv.Error as error:
        raise InputError(f"the row is not valid CSV: {error}") from error
    cells = [[cell.strip() for cell in line] for line in lines]
    if cells and {column.name for column in columns} <= set(cells[0]):
        header = cells.pop(0)
        if odd := next((line for line in cells if len(line) != len(header)), None):
            raise InputError(f"a row has {len(odd)} values under {len(header)} names")
        return [dict(zip(header, line, strict=True)) for line in cells]
    return cells


def _numbers(columns: Sequence[_Column], row: Any) -> list[float]:
    if isinstance(row, Mapping):
        values = [row.get(column.name) for column in columns]
    elif isinstance(row, list):
        if len(row) != len(columns):
            raise InputError(f"the row has {len(row)} values for {len(columns)} columns")
        values = row
    else:
        raise InputError(f"{_brief(row)} is not a row: a JSON object or list is")
    return [number for column, value in zip(columns, values, strict=True)
            for number in column.numbers(value)]  # fmt: skip


def _brief(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:40]}…"
