"""The import action: an XGBoost file becomes ONNX, and is compared with XGBoost."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xgboost

import converting
import forest
import objectives
import reading
from edgectl.build.kit import agreement, data, onnxfile
from edgectl.build.kit.data import Samples
from edgectl.build.kit.wording import first_line
from edgectl.build.protocol import Done, RefusalError, Task, report

if TYPE_CHECKING:
    from numpy.typing import NDArray

_MISSING_SHARE = 0.3
_PROBABILITY = "binary:logistic"


def import_model(task: Task) -> Done:
    """Convert a forest to ONNX with one input and one output.

    Roles: `source`, and `calibration` and `evaluation` where there are any. Params: `inputs` and
    `outputs`, each a list of one {name, datatype, shape}. A classifier gives probabilities, any
    other model what `predict` gives. Compared with XGBoost on real rows, and on the same rows with
    values missing.
    """
    feature = _only(task.params["inputs"], "inputs")
    output = _only(task.params["outputs"], "outputs")
    report(0.1, "reading")
    document = reading.read(task.inputs["source"])
    trees = forest.build(document)
    link = objectives.link_of(trees.objective)
    check_signature(trees, feature, output)
    report(0.4, "converting")
    model = converting.convert(trees, link, task.model, feature, output)
    path = Path("model.onnx")
    onnxfile.save(model, path)
    report(0.8, "comparing with XGBoost")
    booster = load(document)
    samples = data.real_inputs(task)
    checked = [
        agreement.check(
            {output["name"]: predict(booster, trees, each.arrays[feature["name"]], output)},
            onnxfile.run(path, each.arrays),
            each,
        )
        for each in (samples, with_gaps(samples))
    ]
    return Done(
        {"model": path.name},
        {
            "objective": trees.objective,
            "xgboost": xgboost.__version__,
            "iterations": trees.iterations,
            "trees": len(trees.trees),
            "nodes": sum(len(tree.left) for tree in trees.trees),
            "opset": converting.OPSET,
            "agreement": checked[0],
            "agreementWithMissing": checked[1],
        },
    )


def _only(specs: list[dict[str, Any]], what: str) -> dict[str, Any]:
    if len(specs) != 1:
        raise RefusalError(
            "signature-differs",
            f"an XGBoost model has one tensor of {what}, the manifest declares {len(specs)}",
            hint=f"declare one entry in spec.{what}: a table of rows by features",
        )
    return specs[0]


def check_signature(trees: forest.Forest, feature: dict[str, Any], output: dict[str, Any]) -> None:
    """Refuse a forest that is not what the manifest declares."""
    shapes = [[-1, trees.outputs]]
    if trees.outputs == 1:
        shapes += [[-1], [-1, 2]] if trees.objective == _PROBABILITY else [[-1]]
    for spec, wanted, what in (
        (feature, [[-1, trees.features]], "inputs"),
        (output, shapes, "outputs"),
    ):
        if spec["datatype"] != "FP32" or spec["shape"] not in wanted:
            raise RefusalError(
                "signature-differs",
                f"{spec['name']!r} is FP32 {' or '.join(map(str, wanted))} in the model, "
                f"{spec['datatype']} {spec['shape']} in the manifest",
                node=spec["name"],
                hint=f"correct spec.{what} of the Model",
            )


def load(document: dict[str, Any]) -> xgboost.Booster:
    """The model in XGBoost, from the document that was checked and not from the file.

    `multi:softmax` is loaded as `multi:softprob`: the same trees, whose probabilities are asked
    for.
    """
    objective = document["learner"]["objective"]
    if objective["name"] == "multi:softmax":
        objective["name"] = "multi:softprob"
    booster = xgboost.Booster()
    try:
        booster.load_model(bytearray(json.dumps(document).encode()))
    except (xgboost.core.XGBoostError, ValueError) as error:
        raise RefusalError(
            "does-not-load",
            f"XGBoost {xgboost.__version__} does not load the model: {first_line(error)}",
            hint='save it again with model.save_model("model.json")',
        ) from error
    return booster


def predict(
    booster: xgboost.Booster,
    trees: forest.Forest,
    rows: NDArray[np.float32],
    output: dict[str, Any],
) -> NDArray[np.float32]:
    """What XGBoost predicts, in the declared shape."""
    answers = booster.predict(
        xgboost.DMatrix(rows, missing=np.nan),
        iteration_range=(0, trees.iterations),
        validate_features=False,
    ).reshape(len(rows), trees.outputs)
    if output["shape"] == [-1, 2] and trees.outputs == 1:
        answers = np.concatenate([1 - answers, answers], axis=1)
    return np.asarray(answers.reshape([len(rows), *output["shape"][1:]]), np.float32)


def with_gaps(samples: Samples) -> Samples:
    """The same rows with values missing, always the same ones."""
    chance = np.random.default_rng(0)
    arrays = {
        name: np.where(chance.random(rows.shape) < _MISSING_SHARE, np.float32(np.nan), rows)
        for name, rows in samples.arrays.items()
    }
    return Samples(arrays, samples.origin)
