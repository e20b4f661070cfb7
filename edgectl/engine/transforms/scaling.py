"""Columns of numbers to the ranges that a model was trained on.

The columns are the last axis, so that a row [columns] and a window of a time series
[steps, columns] are scaled alike.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgectl.engine.transforms import parameters

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Standardize:
    """(value - mean) / std for each column, as scikit-learn's StandardScaler does it: a column
    whose std is 0 is only shifted."""

    mean: Any
    std: Any

    def __post_init__(self) -> None:
        _same_length(("mean", self.mean), ("std", self.std))
        if min(parameters.per_channel("std", self.std)) < 0:
            raise ValueError("parameter 'std' must not be negative")

    def shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape stays; raises ValueError if the number of columns is another."""
        return _check_columns(shape, ("mean", self.mean), ("std", self.std))

    def apply(self, values: NDArray[Any]) -> NDArray[Any]:
        """Scale [..., columns], in float64: a large mean would cost float32 its digits."""
        import numpy as np

        std = np.asarray(parameters.per_channel("std", self.std), np.float64)
        mean = np.asarray(parameters.per_channel("mean", self.mean), np.float64)
        return (values.astype(np.float64) - mean) / np.where(std == 0, 1, std)


@dataclass(frozen=True, slots=True)
class MinMax:
    """From `min`..`max` of each column to `low`..`high`; with `clip`, no further. A column whose
    `min` is its `max` becomes `low`."""

    min: Any
    max: Any
    low: float = 0
    high: float = 1
    clip: bool = False

    def __post_init__(self) -> None:
        _same_length(("min", self.min), ("max", self.max))
        parameters.number("low", self.low)
        parameters.number("high", self.high)
        parameters.flag("clip", self.clip)
        least = parameters.per_channel("min", self.min)
        most = parameters.per_channel("max", self.max)
        length = max(len(least), len(most))
        pairs = zip(
            least * (length // len(least)), most * (length // len(most)), strict=True
        )  # One number serves all columns.
        if any(low > high for low, high in pairs):
            raise ValueError("parameter 'min' must not be above 'max'")
        if self.low >= self.high:
            raise ValueError("parameter 'low' must be below 'high'")

    def shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape stays; raises ValueError if the number of columns is another."""
        return _check_columns(shape, ("min", self.min), ("max", self.max))

    def apply(self, values: NDArray[Any]) -> NDArray[Any]:
        """Scale [..., columns], in float64."""
        import numpy as np

        least = np.asarray(parameters.per_channel("min", self.min), np.float64)
        most = np.asarray(parameters.per_channel("max", self.max), np.float64)
        span = np.where(most == least, 1, most - least)
        shares = np.where(most == least, 0, (values.astype(np.float64) - least) / span)
        scaled = self.low + shares * (self.high - self.low)
        result: NDArray[Any] = np.clip(scaled, self.low, self.high) if self.clip else scaled
        return result


def _same_length(*given: tuple[str, Any]) -> None:
    lengths = {name: len(parameters.per_channel(name, value)) for name, value in given}
    if len(set(lengths.values()) - {1}) > 1:
        (first, one), (second, other) = lengths.items()
        raise ValueError(f"parameter {first!r} has {one} values and {second!r} {other}")


def _check_columns(shape: tuple[int, ...], *given: tuple[str, Any]) -> tuple[int, ...]:
    count = max(len(parameters.per_channel(name, value)) for name, value in given)
    columns = shape[-1] if shape else 1
    if count > 1 and columns not in (-1, count):
        names = " and ".join(f"'{name}'" for name, _ in given)
        raise ValueError(f"parameters {names} have {count} values, but the last axis has {columns}")
    return shape
