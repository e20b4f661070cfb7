"""Golden data: inputs with the outputs that the built model gave, and how far others may differ."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from edgectl.engine.batches import infer
from edgectl.engine.npz import read_npz

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from edgectl.engine.session import Session

DEFAULT_TOLERANCE = {"absolute": 1e-3, "relative": 1e-3}
"""For a signature that states none: what rounding differs between CPUs, and no more."""

MAX_GOLDEN_BYTES = 1 << 26


def check_golden(session: Session, path: Path, tolerance: Mapping[str, float]) -> list[str]:
    """Run golden inputs one row at a time and compare; the problems found, empty if none.

    `golden.npz` has one array for each input, [rows, ...], and one for each output to compare.
    Raises InputError if the file is unusable or lacks an input, EngineError if the model fails.
    """
    arrays = read_npz(path, max_bytes=MAX_GOLDEN_BYTES)
    inputs = {spec.name for spec in session.inputs}
    expected = {name: array for name, array in arrays.items() if name not in inputs}
    if not expected:
        return [f"{path.name} has no expected outputs"]
    return compare(expected, infer(session, arrays), tolerance)


def similarity(session: Session, path: Path) -> float:
    """The mean cosine similarity of what the model gives for golden inputs to the golden outputs.

    Of the output where it is least; 0 where one holds NaN or infinite values. Raises as
    `check_golden` does.
    """
    arrays = read_npz(path, max_bytes=MAX_GOLDEN_BYTES)
    outputs = infer(session, arrays)
    found = [
        _cosine(arrays[name], got)
        for name, got in outputs.items()
        if name in arrays and got.shape == arrays[name].shape and got.dtype.kind in "biuf"
    ]
    return min(found, default=0.0)


def _cosine(wanted: NDArray[Any], got: NDArray[Any]) -> float:
    wanted, got = (a.reshape(len(a), -1).astype(np.float64) for a in (wanted, got))
    if not (np.isfinite(wanted).all() and np.isfinite(got).all()):
        return 0.0
    lengths = np.linalg.norm(wanted, axis=1) * np.linalg.norm(got, axis=1)
    products = (wanted * got).sum(axis=1)
    equal = np.where((wanted == got).all(axis=1), 1.0, 0.0)  # of nothing: alike only if the same
    return float(np.where(lengths > 0, products / np.where(lengths > 0, lengths, 1), equal).mean())


def compare(
    expected: Mapping[str, NDArray[Any]],
    actual: Mapping[str, NDArray[Any]],
    tolerance: Mapping[str, float],
) -> list[str]:
    """Compare outputs by name; one sentence for each that is out of tolerance.

    `absolute` and `relative` as in numpy.allclose, for every value, where either is given; `top1`
    is the least share of rows whose best class must be the same. Values that are not finite are
    out of any tolerance.
    """
    tolerance = tolerance or DEFAULT_TOLERANCE
    problems = []
    for name, wanted in expected.items():
        if name not in actual:
            problems.append(f"output {name!r} is missing")
        elif problem := _difference(wanted, actual[name], tolerance):
            problems.append(f"output {name!r} {problem}")
    return problems


def _difference(
    wanted: NDArray[Any], got: NDArray[Any], tolerance: Mapping[str, float]
) -> str | None:
    if wanted.shape != got.shape:
        return f"has shape {list(got.shape)}, expected {list(wanted.shape)}"
    if got.dtype.kind in "OSU":
        equal = np.asarray(wanted, np.str_) == np.asarray(got, np.str_)
        return None if equal.all() else f"differs in {int((~equal).sum())} of {equal.size} texts"
    if wanted.dtype.kind not in "biuf":
        return f"holds {got.dtype}, expected {wanted.dtype}"
    wanted, got = wanted.astype(np.float64), got.astype(np.float64)
    if not np.isfinite(got).all():
        return "holds NaN or infinite values"
    if not np.isfinite(wanted).all():
        return "is NaN or infinite in the golden data, which nothing can be held against"
    return _far_value(wanted, got, tolerance) or _other_best(wanted, got, tolerance)


def _far_value(
    wanted: NDArray[Any], got: NDArray[Any], tolerance: Mapping[str, float]
) -> str | None:
    absolute, relative = tolerance.get("absolute"), tolerance.get("relative")
    if wanted.size == 0 or (absolute is None and relative is None):
        return None
    allowed = (absolute or 0.0) + (relative or 0.0) * np.abs(wanted)
    difference = np.abs(got - wanted)
    worst = int(np.argmax(difference - allowed))
    if not difference.flat[worst] > allowed.flat[worst]:
        return None
    return (
        f"is {got.flat[worst]:.6g} where {wanted.flat[worst]:.6g} is expected; it differs by "
        f"{difference.flat[worst]:.3g}, allowed is {allowed.flat[worst]:.3g}"
    )


def _other_best(
    wanted: NDArray[Any], got: NDArray[Any], tolerance: Mapping[str, float]
) -> str | None:
    least = tolerance.get("top1")
    if least is None or wanted.ndim < 2 or wanted.shape[-1] < 2:
        return None
    share = float((wanted.argmax(axis=-1) == got.argmax(axis=-1)).mean())
    if share >= least:
        return None
    return f"has the same best class in {share:.1%} of rows, at least {least:.1%} is asked for"
