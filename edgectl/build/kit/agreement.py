"""Whether two forms of a model give the same outputs on real inputs. Needs numpy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from edgectl.build.protocol import RefusalError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from edgectl.build.kit.data import Samples

ABSOLUTE = 1e-3
RELATIVE = 1e-3
_SMALLEST_SCALE = 1e-3
"""Outputs below it are held to the difference that is allowed of it: the rest is rounding."""


def check(
    expected: Mapping[str, NDArray[Any]],
    actual: Mapping[str, NDArray[Any]],
    samples: Samples,
    *,
    absolute: float = ABSOLUTE,
    relative: float = RELATIVE,
) -> dict[str, Any]:
    """Compare outputs by name, as numpy.allclose does; what the provenance says of it.

    `absolute` is for outputs that reach 1. Of smaller ones it is a share of their largest value: of
    a thousand probabilities of 0.001 each, a difference of 0.001 would say nothing.

    The result is `{"samples", "data", "maxDifference", "absolute", "relative"}`. Refuses outputs
    that differ by more, or in their shape or names (`outputs-changed`).
    """
    largest = 0.0
    for name, want in expected.items():
        got = actual.get(name)
        if got is None or got.shape != want.shape:
            found = "missing" if got is None else f"of shape {list(got.shape)}"
            raise _changed(name, f"is {found} in the imported model, {list(want.shape)} before")
        if want.dtype.kind in "OSU":
            if not np.array_equal(want.astype(np.str_), got.astype(np.str_)):
                raise _changed(name, "differs")
            continue
        difference = np.abs(got.astype(np.float64) - want.astype(np.float64))
        known = difference[~np.isnan(difference)]  # where both are NaN, or both infinite
        allowed = absolute * _scale(want)
        if not np.allclose(got, want, rtol=relative, atol=allowed, equal_nan=True):
            worst = float(difference.max(initial=0.0))
            raise _changed(name, f"differs by {worst:.3g}, allowed is {allowed:.3g}")
        largest = max(largest, float(known.max(initial=0.0)))
    return {
        "samples": samples.rows,
        "data": samples.origin,
        "maxDifference": largest,
        "absolute": absolute,
        "relative": relative,
    }


def _scale(values: NDArray[Any]) -> float:
    """The largest magnitude of an output, from _SMALLEST_SCALE to 1."""
    sizes = np.abs(values[np.isfinite(values)].astype(np.float64))
    return float(np.clip(sizes.max(initial=0.0), _SMALLEST_SCALE, 1.0))


def _changed(output: str, how: str) -> RefusalError:
    return RefusalError(
        "outputs-changed",
        f"on the same inputs, output {output!r} {how}",
        node=output,
        hint="export the model again, for inference: one of its operators computes at random, or "
        "is not translated faithfully",
    )
