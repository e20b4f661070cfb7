"""The compile action: a model that fits becomes a model with everything that a board needs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import tflite_micro

import boards
import sources
from checking import check_model, check_signature
from edgectl.build.protocol import Done, RefusalError, Task, report
from edgectl.engine.tflm import MODEL_FILE, TflmSession, host_arena, open_interpreter
from measuring import kernel_scratch, measure_arena
from reading import model_bytes

if TYPE_CHECKING:
    from collections.abc import Mapping

PRECISIONS = ("int8", "source")
ARM, ESP = "cmsisNn", "espNn"
"""Whose optimised kernels a project takes; other processors have the portable ones, and room."""
ESP_ARCHITECTURES = frozenset({"xtensa", "riscv32"})


def compile_model(task: Task) -> Done:
    """Check a full-integer .tflite file against the interpreter and the target, and emit a project.

    Role: `model`. Params: `precision`, `inputs` and `outputs` as declared, `architecture` of the
    target, `limits` in bytes (`arena`, `modelSize`, `storage`, each optional). The output is a
    directory: `model.tflite` as it came, its sources in `src/`, and skeletons for Arduino, ESP-IDF
    and Zephyr.
    """
    report(0.1, "reading")
    check_precision(str(task.params["precision"]))
    content, model = model_bytes(task)
    check_model(model, task.model)
    report(0.3, "measuring the arena")
    arena = measure_arena(content, model, task.model)
    scratch = kernel_scratch(model)
    interpreter = open_interpreter(content, host_arena(model), task.model)
    session = TflmSession(interpreter, model)
    check_signature(session, task.params, task.model)
    kernels = ESP if task.params.get("architecture") in ESP_ARCHITECTURES else ARM
    check_limits(task.params.get("limits") or {}, task.model, arena, scratch[kernels], len(content))
    report(0.8, "writing the project")
    project = sources.describe(task.model, content, model, arena, scratch)
    write(Path("model"), content, {**sources.files(project), **boards.files(project)})
    return Done(
        {"model": "model"},
        {
            "arenaBytes": arena,
            "kernelScratchBytes": scratch,
            "sizeBytes": len(content),
            "operators": sorted({operator.name for operator in model.operators}),
            "nodes": len(model.operators),
            "interpreter": tflite_micro.__version__,
            "limits": _limited(task.params.get("limits") or {}),
        },
    )


def check_precision(precision: str) -> None:
    """Refuse to call another precision what is full-integer, whatever it was made as."""
    if precision not in PRECISIONS:
        raise RefusalError(
            "unsupported-precision",
            f"a microcontroller gets int8, or a .tflite file of int8 as it came, not {precision}",
            hint="set optimize.precision of the Model to int8, or precisions of the Target",
        )


def check_limits(limits: Mapping[str, Any], name: str, arena: int, scratch: int, size: int) -> None:
    """Refuse what needs more memory or flash than the target gives it.

    `arena` is what the portable kernels took and `scratch` what the target's own take beside it.
    """
    limit = limits.get("arena")
    needed = arena + scratch
    if limit is not None and needed > limit:
        raise RefusalError(
            "arena-too-large",
            f"{name} needs an arena of {needed} bytes (measured {arena}, and {scratch} "
            f"for the scratch of optimised kernels); the target allows {int(limit)}",
            hint="make the largest activations smaller (a stride earlier, fewer channels, a "
            "smaller input), or raise spec.constraints.arena of the Target if the RAM is there",
        )
    for what in ("modelSize", "storage"):
        limit = limits.get(what)
        if limit is not None and size > limit:
            raise RefusalError(
                "model-too-large",
                f"{name} takes {size} bytes of flash; the target allows {int(limit)} ({what})",
                hint="train a model with fewer parameters, or raise spec.constraints."
                f"{what} of the Target if the flash is there",
            )


def _limited(limits: Mapping[str, Any]) -> dict[str, int]:
    """What was checked here; other limits are for the evaluation."""
    return {what: int(limits[what]) for what in ("arena", "modelSize", "storage") if what in limits}


def write(folder: Path, content: bytes, texts: Mapping[str, str]) -> None:
    """The directory that goes into the artifact."""
    folder.mkdir()
    (folder / MODEL_FILE).write_bytes(content)
    for name, text in texts.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8", newline="\n")
