"""Labelled samples: a directory with `labels.csv` and the files it names.

`labels.csv` has the columns `file` and `label`. A file is encoded data (a picture, a recording, a
text or a row, through the declared pre-processing), an .npy array of one row, or, where the model
takes no encoded rows, a .json list of one row's values or object of them by input name. A label is
one of the model's labels or a class index.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from edgectl.engine import transforms
from edgectl.engine.errors import EngineError, InputError
from edgectl.engine.labels import Sample, read_samples
from edgectl.engine.metrics import predicted_classes
from edgectl.engine.npz import read_npy
from edgectl.engine.tensors import numpy_dtype

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from edgectl.engine.session import Session
    from edgectl.engine.signature import ModelSignature

_MAX_BYTES = 1 << 25


@dataclass(frozen=True, slots=True)
class Accuracy:
    """How many samples were answered rightly."""

    correct: int
    total: int

    @property
    def share(self) -> float:
        """From 0 to 1."""
        return self.correct / self.total


def measure_accuracy(
    session: Session, signature: ModelSignature, directory: Path, *, assets: Path | None = None
) -> Accuracy:
    """Answer every sample as the server would, and count the right ones.

    `assets` is the model's directory, where its transforms find their files. Raises InputError for
    unusable samples (a file that does not decode is named), and EngineError if the model fails.
    """
    samples = read_samples(directory)
    correct = sum(
        predict(session, signature, sample.file, assets=assets) == _wanted(signature, sample)
        for sample in samples
    )
    return Accuracy(correct, len(samples))


def predict(
    session: Session, signature: ModelSignature, file: Path, *, assets: Path | None = None
) -> int:
    """The class index that the model answers for one file, by its first output; raises InputError
    if that holds detections, which are no class."""
    output = signature.outputs[0]
    inputs = read_inputs(signature, file, assets=assets)
    outputs = session.run(inputs)
    run = transforms.Run(signature.inputs, signature.outputs, inputs, outputs)
    answer = transforms.postprocess(output, outputs[output.name], run)
    if isinstance(answer, transforms.Classes):
        return int(answer.indices[0].flat[0])
    if isinstance(answer, tuple):
        raise InputError(
            f"output {output.name!r} holds detections; labels.csv is for models that answer a class"
        )
    return int(predicted_classes(answer)[0])


def read_inputs(
    signature: ModelSignature, file: Path, *, assets: Path | None = None
) -> dict[str, NDArray[Any]]:
    """One sample's input arrays, batch dimension included."""
    try:
        if file.suffix == ".npy":
            return {_only_input(signature): read_npy(file, max_bytes=_MAX_BYTES)[None]}
        data = _read(file)
        kinds = {transforms.encoded_kind(spec) for spec in signature.inputs}
        if file.suffix == ".json" and kinds != {"row"}:
            return _tabular(signature, json.loads(data))
        if len(kinds) > 1:
            _only_input(signature)
        return {
            spec.name: transforms.preprocess(spec, data, assets).array for spec in signature.inputs
        }
    except (InputError, ValueError, RecursionError) as error:
        raise InputError(f"sample {file.name}: {error}") from error


def _tabular(signature: ModelSignature, value: Any) -> dict[str, NDArray[Any]]:
    if not isinstance(value, dict):
        value = {_only_input(signature): value}
    specs = {spec.name: spec for spec in signature.inputs}
    if unknown := sorted(set(value) - set(specs)):
        raise InputError(f"the model has no input {unknown[0]!r}")
    return {
        name: np.asarray(row, numpy_dtype(specs[name].datatype))[None]
        for name, row in value.items()
    }


def _only_input(signature: ModelSignature) -> str:
    if len(signature.inputs) != 1:
        raise InputError("the model has several inputs; give them by name in a .json file")
    return signature.inputs[0].name


def _wanted(signature: ModelSignature, sample: Sample) -> int:
    labels = signature.outputs[0].labels
    if sample.label in labels:
        return labels.index(sample.label)
    if not labels and sample.label.isdecimal():
        return int(sample.label)
    raise InputError(
        f"sample {sample.file.name}: label {sample.label!r} is not one of the model's"
        f"{f': {list(labels)}' if labels else '; it has none, so give class indices'}"
    )


def _read(file: Path) -> bytes:
    try:
        with file.open("rb") as stream:
            data = stream.read(_MAX_BYTES + 1)
    except OSError as error:
        raise EngineError(f"cannot read {file}: {error.strerror}") from error
    if len(data) > _MAX_BYTES:
        raise InputError(f"larger than {_MAX_BYTES} bytes")
    return data
