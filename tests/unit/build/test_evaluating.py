"""What the kit makes of an engine's errors, and what it refuses before an engine starts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from edgectl.build.kit.evaluating import evaluate, refusal
from edgectl.build.protocol import RefusalError, Task
from edgectl.engine.errors import (
    EngineError,
    EngineUnavailableError,
    InputError,
    UnsupportedError,
)

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("error", "code", "remedy"),
    [
        (InputError("3 labels for 4 rows"), "data-refused", "spec.evaluation"),
        (UnsupportedError("no operator", node="odd"), "engine-refuses", "replace what it names"),
        (EngineUnavailableError("no driver"), "engine-unavailable", "spec.targets"),
        (EngineError("cut short"), "does-not-load", "is the file whole?"),
    ],
)
def test_each_error_of_an_engine_has_its_own_remedy(
    error: EngineError, code: str, remedy: str
) -> None:
    found = refusal(error)
    assert (found.code, found.message) == (code, str(error))
    assert remedy in found.hint
    assert found.node == getattr(error, "node", None)


@pytest.mark.parametrize(
    ("factor", "datatype", "refused"),
    [(255.0, "FP32", True), (1 / 255, "FP32", True), (2.0, "FP32", False), (255.0, "INT64", False)],
)
def test_calibration_data_of_another_range_are_refused_before_an_engine_starts(
    tmp_path: Path, factor: float, datatype: str, refused: bool
) -> None:
    rows = np.random.default_rng(0).random((64, 4)).astype(np.float32)
    scaled = rows * np.float32(factor)
    kind = np.float32 if datatype == "FP32" else np.int64
    np.savez(tmp_path / "evaluation.npz", x=rows.astype(kind))
    np.savez(tmp_path / "calibration.npz", x=scaled.astype(kind))
    inputs = {role: tmp_path / f"{role}.npz" for role in ("evaluation", "calibration")}
    inputs["model"] = tmp_path / "nothing.onnx"
    params = {"inputs": [{"name": "x", "datatype": datatype, "shape": [-1, 4]}], "outputs": []}
    with pytest.raises(RefusalError) as caught:
        evaluate(Task("evaluate", "m", inputs, params))
    assert (caught.value.code == "calibration-range") is refused
    if refused:
        assert caught.value.node == "x"
        assert caught.value.message.startswith("calibration.npz: array 'x' goes from ")
