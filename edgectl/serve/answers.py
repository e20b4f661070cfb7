"""What is answered of a model's outputs: tensors as they are, classes, or detections."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from edgectl.engine import transforms
from edgectl.engine.errors import InputError
from edgectl.engine.signature import TensorSpec
from edgectl.engine.transforms.scores import TopK
from edgectl.serve.protocol import OutputTensor

if TYPE_CHECKING:
    from collections.abc import Iterable

    from edgectl.engine.signature import ModelSignature
    from edgectl.engine.transforms import Detections, Run
    from edgectl.serve.codec import Array
    from edgectl.serve.protocol import RequestedOutput

DETECTIONS = (
    TensorSpec("boxes", "FP32", (-1, 4)),
    TensorSpec("scores", "FP32", (-1,)),
    TensorSpec("classes", "INT64", (-1,)),
    TensorSpec("labels", "BYTES", (-1,)),
    TensorSpec("rows", "INT64", (-1,)),
)
"""The outputs of a detector as they are served: those of all pictures of a request one after the
other, and in `rows` which picture each was found in."""


def served_outputs(signature: ModelSignature) -> tuple[TensorSpec, ...]:
    """The outputs that a client sees: in a detector, detections in place of the tensors that they
    are made from."""
    found = transforms.detector(signature.outputs)
    if found is None:
        return signature.outputs
    spec, nms = found
    hidden = {spec.name, *nms.consumed, *(served.name for served in DETECTIONS)}
    return DETECTIONS + tuple(spec for spec in signature.outputs if spec.name not in hidden)


class Answers:
    """The outputs of one model."""

    def __init__(self, signature: ModelSignature) -> None:
        self.served = served_outputs(signature)
        self._detector = transforms.detector(signature.outputs)
        self._specs = {spec.name: spec for spec in signature.outputs}
        self._made = {spec.name for spec in DETECTIONS} if self._detector else set()

    @property
    def detects(self) -> bool:
        """Whether detections are answered."""
        return self._detector is not None

    def check(self, output: RequestedOutput) -> None:
        """Raises InputError for an output that is not there, or cannot be had as it is asked."""
        if self._is_made(output):
            if output.classification:
                raise InputError(f"output {output.name!r} has no classes to choose from")
            return
        spec = self._specs.get(output.name)
        if spec is None:
            names = dict.fromkeys([served.name for served in self.served] + list(self._specs))
            listed = ", ".join(repr(name) for name in names)
            raise InputError(f"unknown output {output.name!r}; the model gives {listed}")
        if output.classification and (spec.datatype == "BYTES" or len(spec.shape) < 2):
            raise InputError(f"output {output.name!r} has no classes to choose from")
        if output.postprocess and self._detector and spec is self._detector[0]:
            made = ", ".join(served.name for served in DETECTIONS)
            raise InputError(f"output {output.name!r} is answered as {made}: ask for those")

    def answer(self, requested: Iterable[RequestedOutput], run: Run) -> list[OutputTensor]:
        """The answers that were asked for, all of which `check` let through."""
        requested = list(requested)
        made: dict[str, Array] = {}
        if self._detector is not None and any(map(self._is_made, requested)):
            spec = self._detector[0]
            found = transforms.postprocess(spec, run.outputs[spec.name], run)
            made = _tensors(found)  # type: ignore[arg-type] # a detector's are detections
        return [
            OutputTensor(
                output.name,
                made[output.name] if self._is_made(output) else self._tensor(output, run),
                output.binary,
            )
            for output in requested
        ]

    def _is_made(self, output: RequestedOutput) -> bool:
        return output.name in self._made and output.postprocess is not False

    def _tensor(self, output: RequestedOutput, run: Run) -> Array:
        spec, array = self._specs[output.name], run.outputs[output.name]
        if output.classification:
            scores = transforms.scores(spec, array, run)
            return TopK(output.classification).apply(scores, spec.labels).to_bytes_tensor()
        if not output.postprocess:
            return array
        processed: Any = transforms.postprocess(spec, array, run)
        return processed if isinstance(processed, np.ndarray) else processed.to_bytes_tensor()


def _tensors(found: tuple[Detections, ...]) -> dict[str, Array]:
    labels = [each.label(number) for each in found for number in range(len(each.classes))]
    texts: Array = np.empty(len(labels), np.object_)
    texts[:] = [label.encode() for label in labels]
    counts = [len(each.classes) for each in found]
    return {
        "boxes": np.concatenate([each.boxes for each in found]),
        "scores": np.concatenate([each.scores for each in found]),
        "classes": np.concatenate([each.classes for each in found]),
        "labels": texts,
        "rows": np.repeat(np.arange(len(found), dtype=np.int64), counts),
    }
