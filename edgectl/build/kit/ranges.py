"""Whether calibration data is of the range that the model will see. Needs numpy.

A model that is calibrated on other pre-processing than it is served with loses its accuracy without
an error.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from edgectl.build.protocol import RefusalError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

MOST_RATIO = 16.0
"""Pixels of 0 to 255 against 0 to 1 are 255 apart; two samples of one data set are not 16."""
_SHARES = (1.0, 99.0)
_VALUES = 1 << 20


def check(
    data: Mapping[str, NDArray[Any]],
    real: Mapping[str, NDArray[Any]],
    names: Sequence[str],
    file: str,
) -> None:
    """Hold calibration data, of `file`, against evaluation data, input by input.

    The range of an input is that from its 1st to its 99th percentile. Only floating point is
    compared: whole numbers are indices or pixels, whose range says little.
    """
    for name in names:
        if name in data and name in real and data[name].dtype.kind == real[name].dtype.kind == "f":
            _compare(name, file, _range(data[name]), _range(real[name]))


def _range(values: NDArray[Any]) -> tuple[float, float]:
    flat = values.ravel()[:: max(1, values.size // _VALUES)]
    flat = flat[np.isfinite(flat)]
    if not flat.size:
        return 0.0, 0.0
    low, high = np.percentile(flat, _SHARES)
    return float(low), float(high)


def _compare(name: str, file: str, found: tuple[float, float], wanted: tuple[float, float]) -> None:
    widths = [high - low for low, high in (found, wanted)]
    if min(widths) <= 0:
        return  # a constant array, which int8 refuses with its own words
    apart = found[0] > wanted[1] or wanted[0] > found[1]
    if apart or max(widths) / min(widths) > MOST_RATIO:
        raise RefusalError(
            "calibration-range",
            f"{file}: array {name!r} goes from {found[0]:g} to {found[1]:g}, in the evaluation "
            f"data from {wanted[0]:g} to {wanted[1]:g}",
            node=name,
            hint="make both with the same pre-processing, the one that the model was trained with",
        )
