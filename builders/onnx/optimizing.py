"""The optimize action: one model in the precision that its target asks for."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgectl.build.kit.onnxfile import check_operators, finish, load, save
from edgectl.build.protocol import Done, RefusalError, Task, report
from half import to_half
from opsets import fit
from quantizing import to_dynamic, to_static
from runtime import open_session, session_options

if TYPE_CHECKING:
    from collections.abc import Callable

    import onnx

MODEL = Path("model.onnx")
AS_IMPORTED = ("fp32", "source")
"""Precisions that a model has when it was imported."""


def optimize(task: Task) -> Done:
    """Quantise to int8, halve to fp16, or pass fp32 through, as the target's engine reads it.

    Roles: `model`, and `calibration` where there is any. Params: `precision`, `engineVersion`, and
    those of `quantizing` and `half`. The metadata says what was done.
    """
    precision = task.params["precision"]
    ways: dict[str, Callable[[onnx.ModelProto, Task], tuple[onnx.ModelProto, dict[str, Any]]]] = {
        "fp16": to_half,
        "int8": to_dynamic if task.params.get("scheme") == "dynamic" else to_static,
    }
    if precision not in {*ways, *AS_IMPORTED}:
        raise RefusalError(
            "unsupported-precision",
            f"this builder makes int8, fp16 and fp32, not {precision}",
            hint="set optimize.precision of the Model, or precisions of the Target",
        )
    if task.params.get("compression"):
        raise RefusalError(
            "unsupported-compression",
            "ONNX Runtime has no palettised or sparse weights",
            hint="leave out optimize.compression, which Core ML reads, or set precision int8",
        )
    source = load(task.inputs["model"])
    check_operators(source)
    ours = task.params.get("engine", "onnxruntime") == "onnxruntime"
    requirement = task.params.get("engineVersion") if ours else None
    model = fit(source, requirement) if requirement else source
    if precision in AS_IMPORTED and model is source:
        MODEL.write_bytes(task.inputs["model"].read_bytes())
        return Done({"model": MODEL.name}, {"precision": precision})
    facts: dict[str, Any] = {}
    if precision in ways:
        model, facts = ways[precision](model, task)
        model = fit(model, requirement) if requirement else model
    finish(model, task.model)
    save(model, MODEL)
    report(0.9, "checking that it loads")
    open_session(MODEL.read_bytes(), session_options())
    return Done({"model": MODEL.name}, {"precision": precision, **facts})
