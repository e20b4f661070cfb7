"""The optimize action for an engine that is built already: checked, pinned, and passed through.

It is never deserialised here: an engine may hold code of plugins, and runs on nothing but the GPU
and the TensorRT that it was made for.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from edgectl.build.protocol import Done, RefusalError, Task
from edgectl.engine.recipe import PLAN_FILE, PLAN_MAGIC, RECIPE_FILE, Pins, Recipe

OUTPUT = "model"
_EXACT = re.compile(r"==\s*(\d+(?:\.\d+){1,3})")


def pass_through(task: Task) -> Done:
    """Pin an engine to the TensorRT version and compute capability that the target says.

    Roles: `source`, the engine. Params: `engineVersion`, which has to be exact (`==10.3.0`), and
    `computeCapability`.
    """
    source = task.inputs.get("source")
    if source is None:
        raise RefusalError(
            "nothing-to-do",
            "this builder optimises no ONNX: the onnx builder does",
            hint="name the source's format: source.format: tensorrt for an engine",
        )
    pins = _pins(task)
    _check_file(source)
    output = Path(OUTPUT)
    output.mkdir()
    shutil.copyfile(source, output / PLAN_FILE)
    recipe = Recipe(str(task.params["precision"]), minimum_version=pins.tensorrt, pins=pins)
    (output / RECIPE_FILE).write_bytes(recipe.to_bytes())
    pinned = {"tensorrt": pins.tensorrt, "computeCapability": pins.compute_capability}
    return Done({"model": OUTPUT}, {"pins": pinned})


def _pins(task: Task) -> Pins:
    version = _EXACT.fullmatch(str(task.params.get("engineVersion") or "").strip())
    if version is None:
        raise RefusalError(
            "not-pinned",
            "an engine runs on the TensorRT that made it and no other; the target allows "
            f"{task.params.get('engineVersion') or 'any version'}",
            hint="set engine.version of the Target to the exact version, such as '==10.3.0'",
        )
    capability = task.params.get("computeCapability")
    if not capability:
        raise RefusalError(
            "not-pinned",
            "an engine runs on GPUs of the compute capability that it was made for, and the "
            "target does not say its own",
            hint="set computeCapability of the Target's GPU in spec.accelerators, such as '8.7'",
        )
    return Pins(version[1], str(capability))


def _check_file(path: Path) -> None:
    if path.is_dir():
        raise RefusalError(
            "not-an-engine",
            f"{path.name} is a directory, and a serialised engine is one file",
            hint="set source.path to the .plan or .engine file",
        )
    with path.open("rb") as file:
        head = file.read(64)
    if not head.startswith(PLAN_MAGIC) or len(head) < 64:
        raise RefusalError(
            "not-an-engine",
            f"{path.name} does not begin as a serialised TensorRT engine does, or is cut short",
            hint="give the file that trtexec --saveEngine or build_serialized_network made, or "
            "set source.format to what it is",
        )
