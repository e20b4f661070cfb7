"""What a model gave to what people asked for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgectl.engine.errors import InputError
from edgectl.engine.transforms.anomaly import ReconstructionError
from edgectl.engine.transforms.detection import Detections, Nms
from edgectl.engine.transforms.geometry import Geometry
from edgectl.engine.transforms.registry import name_of, read_post, read_pre
from edgectl.engine.transforms.scores import ArgMax, Classes, Threshold, TopK
from edgectl.engine.transforms.values import Layout

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from edgectl.engine.signature import TensorSpec


@dataclass(frozen=True, slots=True, eq=False)
class Run:
    """One run of a model: what post-processing may need beside the output itself."""

    input_specs: Sequence[TensorSpec]
    output_specs: Sequence[TensorSpec]
    inputs: Mapping[str, NDArray[Any]]
    """As the engine was given them."""
    outputs: Mapping[str, NDArray[Any]]
    geometries: tuple[Geometry | None, ...] = ()
    """Of the pictures of the batch, where they were sent encoded."""

    def input(self, name: str) -> NDArray[Any]:
        """The input of this name, or the only one for an empty name; raises InputError."""
        wanted = name or (self.input_specs[0].name if len(self.input_specs) == 1 else "")
        if wanted not in self.inputs:
            raise InputError(f"the model was given no input {wanted!r}")
        return self.inputs[wanted]

    def output(self, name: str) -> NDArray[Any]:
        """Another output after its own transforms; raises InputError if there is none."""
        for spec in self.output_specs:
            if spec.name == name:
                return scores(spec, self.outputs[name], self)
        raise InputError(f"the model gives no output {name!r}")

    def pictures(self) -> tuple[Geometry | None, ...]:
        """The geometry of each row: of tensors, that of a picture that nothing was done to."""
        if self.geometries:
            return self.geometries
        for spec in self.input_specs:
            array = self.inputs.get(spec.name)
            if array is not None and array.ndim == 4:
                down, across = (2, 3) if _channels_first(spec, array) else (1, 2)
                return (Geometry.of(array.shape[across], array.shape[down]),) * len(array)
        return ()


def scores(spec: TensorSpec, array: NDArray[Any], run: Run | None = None) -> NDArray[Any]:
    """The output as numbers: its transforms up to where something is chosen.

    Raises InputError for the output of a detector, which has no such numbers, and where a
    transform needs the `run` and none is given.
    """
    for transform in map(read_post, spec.transforms):
        if isinstance(transform, TopK | ArgMax | Threshold):
            break
        if isinstance(transform, Nms):
            raise InputError(f"output {spec.name!r} holds boxes, not scores")
        if isinstance(transform, ReconstructionError):
            array = transform.apply(array, _needed(spec, run).input(transform.input))
        else:
            array = transform.apply(array)
    return array


def postprocess(
    spec: TensorSpec, array: NDArray[Any], run: Run | None = None
) -> NDArray[Any] | Classes | tuple[Detections, ...]:
    """An output array [batch, ...] through the declared transforms.

    The result is an array, `Classes` where `topk`, `argmax` or `threshold` of one score is
    declared, or the `Detections` of each picture where `nms` is. Raises InputError where a
    transform needs the `run` and none is given, EngineError if outputs do not fit each other.
    """
    last = read_post(spec.transforms[-1]) if spec.transforms else None
    if isinstance(last, Nms):
        return _detect(last, spec, array, run)
    numbers = scores(spec, array, run)
    if isinstance(last, TopK | ArgMax | Threshold):
        return last.apply(numbers, spec.labels)
    return numbers


def _detect(
    nms: Nms, spec: TensorSpec, array: NDArray[Any], run: Run | None
) -> tuple[Detections, ...]:
    if run is None and (nms.consumed or nms.units == "normalized"):
        run = _needed(spec, run)
    apart = run.output(nms.scores) if run is not None and nms.scores else None
    classes = run.output(nms.classes) if run is not None and nms.classes else None
    pictures = run.pictures() if run is not None else ()
    return nms.apply(array, apart, classes, pictures, spec.labels)


def _needed(spec: TensorSpec, run: Run | None) -> Run:
    if run is None:
        named = name_of(spec.transforms[-1])
        raise InputError(f"output {spec.name!r}: {named!r} needs the inputs and outputs of the run")
    return run


def _channels_first(spec: TensorSpec, array: NDArray[Any]) -> bool:
    """As the input's `layout` says; without any transforms, by where the few channels are."""
    for step in map(read_pre, spec.transforms):
        if isinstance(step, Layout):
            return step.order == "NCHW"
    return not spec.transforms and array.shape[1] in (1, 3, 4)
