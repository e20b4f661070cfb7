"""Many rows through a session in batches that the model takes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from edgectl.engine.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from edgectl.engine.session import Session


def infer(
    session: Session, inputs: Mapping[str, NDArray[Any]], *, batch: int = 1
) -> dict[str, NDArray[Any]]:
    """Run all rows (the first axis of every input) and join the outputs, [rows, ...] each.

    A model whose file fixes the batch size gets that size instead of `batch`. Raises InputError if
    inputs are missing, differ in their number of rows, have none, or do not fill whole batches of
    the fixed size; EngineError as `Session.run` does.
    """
    rows = row_count(session, inputs)
    size = min(fixed_batch(session) or batch, rows)
    if rows % (fixed_batch(session) or 1):
        raise InputError(f"{rows} rows do not fill batches of {fixed_batch(session)}")
    names = [spec.name for spec in session.inputs]
    parts = [
        session.run({name: inputs[name][start : start + size] for name in names})
        for start in range(0, rows, size)
    ]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def row_count(session: Session, inputs: Mapping[str, NDArray[Any]]) -> int:
    """The number of rows that all of the session's inputs have; raises InputError as `infer`."""
    names = [spec.name for spec in session.inputs]
    if missing := [name for name in names if name not in inputs]:
        raise InputError(
            f"no array for input {missing[0]!r}; there are: {', '.join(sorted(inputs)) or 'none'}"
        )
    counts = {len(inputs[name]) if inputs[name].ndim else 0 for name in names}
    if len(counts) != 1:
        raise InputError(f"the inputs differ in their number of rows: {sorted(counts)}")
    rows = counts.pop()
    if rows == 0:
        raise InputError("the data has no rows")
    return rows


def fixed_batch(session: Session) -> int | None:
    """The batch size that the model's file fixes, None where it is open."""
    sizes = {spec.shape[0] for spec in session.inputs if spec.shape} - {-1}
    return max(sizes, default=None)
