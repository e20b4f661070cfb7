"""The evaluate action: the ONNX that a device builds its engine of, by ONNX Runtime on the host.

Without graph optimisations. Those of ONNX Runtime's CPU provider compute a model that mixes int8
with fp16 wrongly, and silently so; how far they would have been off is part of the report. What an
engine answers, and how fast, is left to the device: its golden data, warm-up and soak.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from edgectl.build.kit.data import MAX_SAMPLES, read_npz
from edgectl.build.kit.evaluating import deferred
from edgectl.build.kit.evaluating import evaluate as evaluate_by_engine
from edgectl.build.protocol import Done, RefusalError, Task, report
from edgectl.engine.batches import fixed_batch, infer
from edgectl.engine.errors import EngineError, UnsupportedError
from edgectl.engine.modeldir import file_size
from edgectl.engine.options import EngineOptions
from edgectl.engine.session import load_session

if TYPE_CHECKING:
    from pathlib import Path

USED = "none"
DEFAULT = "all"
HONEST_SQNR = 20.0
"""dB. Optimisations that round elsewhere are far above it; a model computed wrongly is below."""
MOST_SQNR = 150.0
"""dB that equal outputs are said to have: float64 knows no more of float32."""


def evaluate(task: Task) -> Done:
    """Measure accuracy on the host, and say what is left to the device.

    Roles and params as `edgectl.engine.evaluate.evaluate_request` has them. The metadata also has
    `optimizations`: `{"used", "compared", "sqnr", "corrupts"}`.
    """
    model = task.inputs["model"]
    file = model / "model.onnx" if model.is_dir() else model
    if file.suffix != ".onnx" or not file.is_file():
        return deferred(
            task,
            "tensorrt",
            "A serialised engine runs on the GPU that it was made for and is not loaded here; the "
            "device holds it to its golden data and watches it during the soak.",
        )
    params = dict(task.params) | {
        "engine": "onnxruntime",
        "providers": ["CPUExecutionProvider"],
        "device": "",
        "optimizations": USED,
        "latency": False,  # the host's would say nothing about a GPU
    }
    try:
        inputs = {**task.inputs, "model": file}
        done = evaluate_by_engine(replace(task, inputs=inputs, params=params))
    except RefusalError as refusal:
        if not isinstance(refusal.__cause__, UnsupportedError):
            raise
        return deferred(
            task,
            "tensorrt",
            f"ONNX Runtime's CPU provider does not run this model ({refusal.message}); the device "
            "holds its engine to the golden data and watches it during the soak.",
        )
    report(0.7, "comparing with optimisations")
    return Done(
        {},
        {
            **done.metadata,
            "sizeBytes": file_size(model),
            "optimizations": compare(file, task.inputs["evaluation"]),
            "left": "latency and peak memory, which the device measures in its warm-up",
        },
    )


def compare(model: Path, data: Path, level: str = DEFAULT) -> dict[str, Any]:
    """How far outputs with graph optimisations are from those without, on real rows.

    The result is `{"used", "compared", "sqnr", "corrupts"}`: the worst signal-to-quantisation-noise
    ratio of any output in dB, None where the optimised model does not even load.
    """
    arrays = read_npz(data)
    honest = _outputs(model, arrays, USED)
    try:
        optimised = _outputs(model, arrays, level)
    except EngineError:
        return {"used": USED, "compared": level, "sqnr": None, "corrupts": True}
    worst = min(sqnr(want, optimised[name]) for name, want in honest.items())
    return {
        "used": USED,
        "compared": level,
        "sqnr": round(worst, 1),
        "corrupts": worst < HONEST_SQNR,
    }


def _outputs(model: Path, arrays: dict[str, Any], level: str) -> dict[str, Any]:
    options = EngineOptions(extra={"optimizations": level})
    session = load_session(model, engine="onnxruntime", options=options)
    try:
        names = [spec.name for spec in session.inputs if spec.name in arrays]
        batch = fixed_batch(session) or 1
        rows = max(MAX_SAMPLES - MAX_SAMPLES % batch, batch)
        return infer(session, {name: arrays[name][:rows] for name in names})
    finally:
        session.close()


def sqnr(expected: Any, actual: Any) -> float:
    """Signal-to-quantisation-noise ratio in dB of outputs of any shape."""
    want = np.asarray(expected, np.float64)
    noise = float(np.sum((want - np.asarray(actual, np.float64)) ** 2))
    signal = float(np.sum(want**2))
    if not math.isfinite(noise):
        return -MOST_SQNR
    if noise == 0:
        return MOST_SQNR
    return min(max(10 * math.log10(max(signal, 1e-300) / noise), -MOST_SQNR), MOST_SQNR)
