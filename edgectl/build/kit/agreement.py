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


def check(
    expected: Mapping[str, NDArray[Any]],
    actual: Mapping[str, NDArray[Any]],
    samples: Samples,
    *,
    absolute: float = ABSOLUTE,
    relative: float = RELATIVE,
) -> dict[str, Any]:
    """Compare outputs by name, as numpy.allclose does; what the provenance says of it.

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
        worst = float(difference.max(initial=0.0))
        if not np.allclose(got, want, rtol=relative, atol=absolute, equal_nan=True):
            raise _changed(name, f"differs by {worst:.3g}, allowed is {absolute:g}")
        largest = max(largest, 0.0 if np.isnan(worst) else worst)
    return {
        "samples": samples.rows,
        "data": samples.origin,
        "maxDifference": largest,
        "absolute": absolute,
        "relative": relative,
    }


def _changed(output: str, how: str) -> RefusalError:
    return RefusalError(
        "outputs-changed",
        f"on the same inputs, output {output!r} {how}",
        node=output,
        hint="export the model again, for inference: one of its operators computes at random, or "
        "is not translated faithfully",
    )
