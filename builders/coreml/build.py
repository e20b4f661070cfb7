"""The Core ML toolchain: optimize (a PyTorch program to a package with small weights, or a Core ML
model checked and passed through) and evaluate, which needs a Mac.

Everything written is the same byte for byte when the same request runs again.
"""

from __future__ import annotations

import json
import platform
from pathlib import Path
from typing import Any

import package
import specification
import versions
from edgectl.build.kit import evaluating
from edgectl.build.protocol import Done, RefusalError, Task, main, report

PRECISIONS = ("fp16", "fp32", "int8", "int4")
AS_IT_IS = "source"
"""Of a Core ML model that passes through."""
OUTPUT = Path("model")
FILE = "model.mlpackage"
ANY_VERSION = ">=5"
INT64_KEY = "dev.edgectl.int64"
"""Read by edgectl.engine.coreml: the tensors that the manifest declares as INT64."""


def optimize(task: Task) -> Done:
    """Make `model/model.mlpackage` of a PyTorch program or a Core ML model.

    Roles: `source`. Params: `format` (pytorch or coreml), `precision` (fp16, fp32; int8 and int4
    are weights, computed with in float16; `source` leaves a Core ML model as it is), `compression`,
    `engineVersion`, `inputs`, `outputs`, `trustCode`.
    """
    if "source" not in task.inputs:
        raise RefusalError(
            "no-core-ml-form",
            "ONNX has no way to Core ML: coremltools converts PyTorch programs",
            hint="set source.format: pytorch with a torch.export program, or coreml",
        )
    precision = task.params["precision"]
    passed = task.params.get("format") == "coreml"
    if precision not in PRECISIONS and not (passed and precision == AS_IT_IS):
        raise RefusalError(
            "unsupported-precision",
            f"Core ML has no {precision}",
            hint=f"set optimize.precision of the Model, or precisions of the Target, to one of "
            f"{', '.join(PRECISIONS)}",
        )
    core_ml = versions.oldest(str(task.params.get("engineVersion") or ANY_VERSION))
    if passed:
        made, origin = _passed(task, precision, core_ml), "coreml"
    else:
        made, origin = _converted(task, precision, core_ml), "pytorch"
    report(0.8, "checking the specification")
    made = _marked(made, task.params)
    specification.check(made, task.params["inputs"], task.params["outputs"], core_ml)
    package.write(made, OUTPUT / FILE)
    return Done({"model": str(OUTPUT)}, _facts(made, origin, task.params))


def _converted(task: Task, precision: str, core_ml: versions.CoreMl) -> package.Package:
    import compressing
    import converting
    from edgectl.build.kit import torchfile

    report(0.1, "loading")
    program = torchfile.load(
        task.inputs["source"], trusted=bool(task.params.get("trustCode", False))
    )
    report(0.3, "converting")
    model = converting.convert(
        program,
        task.params["inputs"],
        task.params["outputs"],
        half=precision != "fp32",
        core_ml=core_ml,
    )
    report(0.6, "compressing weights")
    compression = task.params.get("compression") or {}
    return _stripped(compressing.compress(model, precision, compression, core_ml))


def _passed(task: Task, precision: str, core_ml: versions.CoreMl) -> package.Package:
    """A Core ML model as it is, but for weights that are to be smaller."""
    report(0.1, "reading the package")
    made = package.read(task.inputs["source"])
    specification.check(made, task.params["inputs"], task.params["outputs"], core_ml)
    compression = task.params.get("compression") or {}
    if precision not in {"int8", "int4"} and not compression:
        return made
    if specification.kind(made.specification) != "mlProgram":
        raise RefusalError(
            "not-compressible",
            f"the model is a {specification.kind(made.specification)}; only the weights of ML "
            "programs can be compressed",
            hint="set precision fp16 or fp32, with which it passes through unchanged, or convert "
            "the PyTorch program",
        )
    from coremltools.models import MLModel

    import compressing

    report(0.4, "compressing weights")
    copy = Path("source.mlpackage")
    package.write(made, copy)
    model = compressing.compress(
        MLModel(str(copy), skip_model_load=True), precision, compression, core_ml
    )
    smaller = _stripped(model)
    package.remove(copy)
    return smaller


def _stripped(model: Any) -> package.Package:
    """What coremltools made, without the clock and the versions that it writes down."""
    made = model.get_spec()
    made.description.metadata.userDefined.clear()
    weights = Path(model.weights_dir)
    files = {f"{weights.name}/{path.name}": path for path in sorted(weights.iterdir())}
    return package.Package(made, made.SerializeToString(deterministic=True), files)


def _marked(made: package.Package, params: Any) -> package.Package:
    """Written down where Core ML's only whole numbers, INT32, stand for declared INT64."""
    wide = sorted(
        spec["name"]
        for spec in (*params["inputs"], *params["outputs"])
        if spec["datatype"] == "INT64"
    )
    if not wide:
        return made
    made.specification.description.metadata.userDefined[INT64_KEY] = json.dumps(wide)
    data = made.specification.SerializeToString(deterministic=True)
    return package.Package(made.specification, data, made.weights)


def _facts(made: package.Package, origin: str, params: Any) -> dict[str, Any]:
    form = specification.kind(made.specification)
    return {
        "precision": params["precision"],
        "compression": params.get("compression") or {},
        "source": origin,
        "kind": form,
        "specificationVersion": made.specification.specificationVersion,
        "needs": versions.named(made.specification.specificationVersion),
        "operators": specification.operators(made.specification),
        "checked": "the specification and its weights; outputs were not compared with those of "
        "the source, because Core ML computes on Apple's systems only",
    }


def evaluate(task: Task) -> Done:
    """Measure the model on a Mac; elsewhere say that the device does."""
    if platform.system() == "Darwin":
        return evaluating.evaluate(task)
    return evaluating.deferred(
        task,
        "coreml",
        "Core ML predicts on Apple's systems only: its specification was checked here, and the "
        "device holds it against the golden data and its gates when it is installed",
    )


if __name__ == "__main__":
    main({"optimize": optimize, "evaluate": evaluate})
