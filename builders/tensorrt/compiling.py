"""The compile action: optimised ONNX becomes a directory with the recipe of its engine."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx

from checking import OLDEST, check_boundary, check_operators, check_precision
from edgectl.build.kit.onnxfile import check_signature
from edgectl.build.kit.wording import first_line
from edgectl.build.protocol import Done, RefusalError, Task, report
from edgectl.engine.recipe import RECIPE_FILE, Batch, Dla, Recipe

if TYPE_CHECKING:
    from collections.abc import Mapping

MODEL_FILE = "model.onnx"
OUTPUT = "model"
BATCH = Batch(1, 1, 16)
"""A device answers one request at a time, mostly; the adapter runs larger batches in parts."""
DLA_BATCH = Batch(1, 1, 1)
"""A DLA takes no range of sizes."""


def compile_model(task: Task) -> Done:
    """Check that TensorRT reads a model, and write it with its recipe.

    Roles: `model`, the ONNX file that the onnx builder optimised, or a directory with it. Params:
    `inputs` and `outputs` as declared, `precision`, `engineVersion`, `device` (`GPU`, `DLA:0`),
    `workspace` (bytes).
    """
    report(0.1, "loading")
    source = task.inputs["model"]
    source = source / MODEL_FILE if source.is_dir() else source
    model = _load(source)
    report(0.3, "checking what TensorRT reads")
    least = least_version(str(task.params.get("engineVersion") or OLDEST))
    minimum = check_operators(model, least)
    is_open = check_boundary(model)
    check_signature(model, task.params["inputs"], task.params["outputs"])
    check_precision(model, str(task.params["precision"]))
    recipe = make_recipe(task.params, minimum, is_open=is_open)
    output = Path(OUTPUT)
    output.mkdir()
    shutil.copyfile(source, output / MODEL_FILE)
    for name in _external_files(source, model):
        shutil.copyfile(source.parent / name, output / name)
    (output / RECIPE_FILE).write_bytes(recipe.to_bytes())
    return Done({"model": OUTPUT}, {"recipe": json.loads(recipe.to_bytes())})


def _load(path: Path) -> onnx.ModelProto:
    try:
        return onnx.load_model(path, load_external_data=False)
    except Exception as error:
        raise RefusalError(
            "does-not-load",
            f"{path.name} is not a readable ONNX file: {first_line(error)}",
            hint="build the model again; the optimised file is damaged",
        ) from error


def _external_files(source: Path, model: onnx.ModelProto) -> list[str]:
    """The files beside the model that hold its weights, by name."""
    names = {
        entry.value
        for tensor in model.graph.initializer
        for entry in tensor.external_data
        if entry.key == "location"
    }
    for name in names:
        if Path(name).name != name or not (source.parent / name).is_file():
            raise RefusalError(
                "external-data-missing",
                f"the weights in {name!r} are not beside the model",
                hint="build the model again; the optimised files are incomplete",
            )
    return sorted(names)


def make_recipe(params: Mapping[str, Any], minimum_version: str, *, is_open: bool) -> Recipe:
    """The recipe that a target's settings ask for; refuses a device that TensorRT has not."""
    precision = str(params["precision"])
    dla = read_device(str(params.get("device") or "GPU"))
    if dla is not None and precision != "fp16":
        raise RefusalError(
            "dla-precision",
            f"a DLA runs fp16; in int8 it takes no QuantizeLinear, and {precision} is for the GPU",
            hint="set optimize.precision: fp16, or engine.device: GPU of the Target",
        )
    workspace = params.get("workspace")
    batch = (BATCH if dla is None else DLA_BATCH) if is_open else None
    return Recipe(
        precision=precision,
        # TensorRT 10 takes a network for a DLA only as it was before strong types, with a flag.
        strongly_typed=dla is None,
        batch=batch,
        workspace=None if workspace is None else int(workspace),
        dla=dla,
        minimum_version=minimum_version,
    )


def read_device(device: str) -> Dla | None:
    """The DLA core of `DLA:0`, None for `GPU`; refuses anything else."""
    if device == "GPU":
        return None
    found = re.fullmatch(r"DLA(?::(\d+))?", device)
    if found is None:
        raise RefusalError(
            "unknown-device",
            f"TensorRT has no device {device!r}",
            hint="set engine.device of the Target to GPU, DLA:0 or DLA:1",
        )
    return Dla(int(found[1] or 0), gpu_fallback=True)


def least_version(requirement: str) -> str:
    """The oldest version that a requirement such as `>=10.3, <11` allows, as far as it says."""
    for clause in requirement.split(","):
        found = re.fullmatch(r"\s*(>=|==|~=|>|)\s*(\d+(?:\.\d+)*)\s*", clause)
        if found is not None:
            return found[2]
    return OLDEST
