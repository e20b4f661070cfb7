"""The metrics of a task on labelled data, from what the model gave for it."""

from __future__ import annotations

import importlib.util
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from edgectl.engine import metrics, transforms
from edgectl.engine.detection_metrics import mean_average_precision
from edgectl.engine.errors import EngineError, InputError
from edgectl.engine.tasks import METRICS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from edgectl.engine.signature import TensorSpec

BOXES = "boxes"
"""The array of true boxes of a detector's data, beside that of classes."""


@dataclass(frozen=True, slots=True, eq=False)
class Answers:
    """What a model gave for labelled data."""

    arrays: Mapping[str, NDArray[Any]]
    """The data, inputs and labels."""
    labels: str
    """Name of the array of labels."""
    input_specs: Sequence[TensorSpec]
    output_specs: Sequence[TensorSpec]
    """With the declared transforms; the first is scored."""
    outputs: Mapping[str, NDArray[Any]]

    @property
    def wanted(self) -> NDArray[Any]:
        """The labels."""
        return self.arrays[self.labels]

    def scores(self) -> NDArray[Any]:
        """The first output as numbers; raises EngineError if some are not finite."""
        output = self.output_specs[0]
        found = transforms.scores(output, self.outputs[output.name], self._run())
        if found.dtype.kind == "f" and not np.isfinite(found).all():
            raise EngineError(f"output {output.name!r} holds NaN or infinite values")
        return found

    def detections(self) -> tuple[transforms.Detections, ...]:
        """The first output as detections, a set for each row, in pixels of the input."""
        output = self.output_specs[0]
        found = transforms.postprocess(output, self.outputs[output.name], self._run())
        if not isinstance(found, tuple):
            raise InputError(f"output {output.name!r} is no detector's: declare nms for it")
        return found

    def _run(self) -> transforms.Run:
        inputs = {spec.name: self.arrays[spec.name] for spec in self.input_specs}
        return transforms.Run(self.input_specs, self.output_specs, inputs, self.outputs)


def score(task: str, answers: Answers) -> dict[str, float]:
    """The metrics of a task, as `edgectl.engine.tasks.METRICS` names them.

    Raises InputError for a task that is none and labels that do not fit, EngineError for outputs
    that are not finite. A task without metrics of its own has none: give one of your own.
    """
    if task not in METRICS:
        raise InputError(f"task {task!r} has no metrics; known are {', '.join(METRICS)}")
    for name in (answers.labels, BOXES):
        values = answers.arrays.get(name)
        if values is not None and values.dtype.kind == "f" and not np.isfinite(values).all():
            raise InputError(f"the labels {name!r} hold NaN or infinite values")
    scorer = _SCORERS.get(task)
    return {} if scorer is None else scorer(answers)


def own_metric(path: Path, function: str, answers: Answers) -> float:
    """A user's own metric: `function(labels, outputs, inputs)` of a Python file gives a number.

    `labels` is the array of labels, `outputs` and `inputs` are arrays by name, rows first. Raises
    InputError if the file has no such function, it fails, or its result is no finite number.
    """
    spec = importlib.util.spec_from_file_location("edgectl_own_metric", path)
    if spec is None or spec.loader is None:
        raise InputError(f"{path.name} is no Python file")
    module = importlib.util.module_from_spec(spec)
    inputs = {each.name: answers.arrays[each.name] for each in answers.input_specs}
    try:
        spec.loader.exec_module(module)
        value = float(getattr(module, function)(answers.wanted, dict(answers.outputs), inputs))
    except Exception as error:
        raise InputError(f"metric {function} of {path.name} failed: {error!r}") from error
    if not math.isfinite(value):
        raise InputError(f"metric {function} of {path.name} gave {value}")
    return value


def _classification(answers: Answers) -> dict[str, float]:
    names = answers.output_specs[0].labels
    return metrics.classification(metrics.class_indices(answers.wanted, names), answers.scores())


def _regression(answers: Answers) -> dict[str, float]:
    return metrics.regression(answers.wanted, answers.scores())


def _anomaly(answers: Answers) -> dict[str, float]:
    labels = metrics.class_indices(answers.wanted, ("normal", "anomaly"))
    found = answers.scores()
    if found.size != len(labels):
        raise InputError(f"{len(labels)} labels do not fit scores of shape {list(found.shape)}")
    if set(np.unique(labels)) != {0, 1}:
        raise InputError("labels of anomaly detection are 0 and 1, and both must occur")
    found = found.reshape(len(labels)).astype(np.float64)
    return {"auc": metrics.auc(labels, found), "f1": metrics.best_f1(labels, found)}


def _detection(answers: Answers) -> dict[str, float]:
    if BOXES not in answers.arrays:
        raise InputError(f"the data of a detector has an array {BOXES!r} beside the classes")
    boxes, classes = answers.arrays[BOXES], answers.wanted
    if boxes.shape != (*classes.shape, 4) or classes.ndim != 2:
        raise InputError(
            f"boxes of shape {list(boxes.shape)} do not fit classes of shape {list(classes.shape)}"
        )
    return mean_average_precision(answers.detections(), boxes, classes)


def _segmentation(answers: Answers) -> dict[str, float]:
    return metrics.segmentation(answers.wanted, answers.scores())


def _recommendation(answers: Answers) -> dict[str, float]:
    names = answers.output_specs[0].labels
    return metrics.ranking(metrics.class_indices(answers.wanted, names), answers.scores())


_SCORERS: Mapping[str, Callable[[Answers], dict[str, float]]] = {
    "classification": _classification,
    "regression": _regression,
    "forecasting": _regression,
    "anomaly-detection": _anomaly,
    "detection": _detection,
    "segmentation": _segmentation,
    "recommendation": _recommendation,
}
