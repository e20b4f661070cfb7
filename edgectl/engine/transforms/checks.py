"""Checks of declared transforms: of each tensor, and of those that belong together.

Nothing here imports numpy: declarations are checked where it is not installed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from edgectl.engine.transforms.anomaly import ReconstructionError
from edgectl.engine.transforms.detection import Nms
from edgectl.engine.transforms.image import Crop, Resize
from edgectl.engine.transforms.registry import (
    FOR_KIND,
    KINDS,
    name_of,
    read_post,
    read_pre,
)
from edgectl.engine.transforms.scores import ArgMax, Threshold, TopK
from edgectl.engine.transforms.spectrum import LogMel
from edgectl.engine.transforms.values import Layout, Normalize
from edgectl.engine.transforms.wav import Audio

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgectl.engine.signature import TensorSpec
    from edgectl.engine.transforms.registry import PreTransform

_FINAL = (TopK, ArgMax, Threshold, Nms)
_PLURAL = {"image": "images", "audio": "audio", "text": "text", "row": "rows"}


def check(spec: TensorSpec, role: Literal["input", "output"]) -> None:
    """Check an input's or output's transforms: names, parameters, order, and the resulting shape.

    Raises ValueError that names the transform and what would be right.
    """
    if role == "input":
        _check_input(spec)
    else:
        _check_output(spec)


def check_together(inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]) -> None:
    """Check what the transforms of outputs say of other tensors, each being fine by itself.

    Raises ValueError that names the output and the tensor that is missing or does not fit.
    """
    found = [spec.name for spec in outputs if _nms_of(spec) is not None]
    if len(found) > 1:
        raise ValueError(f"outputs {found[0]!r} and {found[1]!r}: only one can have 'nms'")
    for spec in outputs:
        for transform in map(read_post, spec.transforms):
            if isinstance(transform, Nms):
                _check_detector(spec, transform, outputs)
            elif isinstance(transform, ReconstructionError):
                _check_autoencoder(spec, transform, inputs)


def detector(outputs: Sequence[TensorSpec]) -> tuple[TensorSpec, Nms] | None:
    """The output that makes detections, and how; None if the model is no detector."""
    for spec in outputs:
        nms = _nms_of(spec)
        if nms is not None:
            return spec, nms
    return None


def _nms_of(spec: TensorSpec) -> Nms | None:
    last = read_post(spec.transforms[-1]) if spec.transforms else None
    return last if isinstance(last, Nms) else None


def _check_input(spec: TensorSpec) -> None:
    if not spec.transforms:
        return
    steps = [(name_of(declared), read_pre(declared)) for declared in spec.transforms]
    names = [name for name, _ in steps]
    kind = KINDS.get(names[0])
    if kind is None or any(name in KINDS for name in names[1:]):
        decoders = ", ".join(f"{name!r} ({kind})" for name, kind in KINDS.items())
        raise ValueError(f"input {spec.name!r}: one of {decoders} must come first, and once")
    _check_order(spec, kind, steps)
    shape: tuple[int, ...] = ()
    for name, transform in steps:
        try:
            shape = transform.shape(shape)
        except ValueError as error:
            raise ValueError(f"input {spec.name!r}: transform {name!r} {error}") from None
    if not _could_be(shape, spec.shape[1:]):
        raise ValueError(
            f"input {spec.name!r}: its transforms make {_batched(shape)}, "
            f"but its shape is {list(spec.shape)}"
        )


def _check_order(spec: TensorSpec, kind: str, steps: list[tuple[str, PreTransform]]) -> None:
    laid_out = False
    for name, transform in steps:
        wanted = FOR_KIND.get(name, kind)
        if wanted != kind:
            raise ValueError(
                f"input {spec.name!r}: transform {name!r} works on {_PLURAL[wanted]}, but"
                f" {name_of(spec.transforms[0])!r} makes it take {_PLURAL[kind]}"
            )
        if laid_out and isinstance(transform, Resize | Crop | Normalize):
            raise ValueError(f"input {spec.name!r}: transform {name!r} must come before 'layout'")
        laid_out = laid_out or isinstance(transform, Layout)
        _check_rate(spec, steps[0][1], transform)


def _check_rate(spec: TensorSpec, first: PreTransform, transform: PreTransform) -> None:
    if isinstance(first, Audio) and isinstance(transform, LogMel) and transform.rate != first.rate:
        raise ValueError(
            f"input {spec.name!r}: transform 'log_mel' is for {transform.rate} samples per second,"
            f" but 'audio' makes {first.rate}"
        )


def _check_output(spec: TensorSpec) -> None:
    transforms = [(name_of(declared), read_post(declared)) for declared in spec.transforms]
    if not any(isinstance(each, Nms | ReconstructionError) for _, each in transforms):
        _check_labels(spec, spec.shape[-1] if spec.shape else 1)
    shape = spec.shape
    for position, (name, transform) in enumerate(transforms):
        if isinstance(transform, _FINAL) and position != len(transforms) - 1:
            raise ValueError(f"output {spec.name!r}: {name!r} must come last")
        if isinstance(transform, Nms | ReconstructionError) and position:
            raise ValueError(f"output {spec.name!r}: {name!r} must come first")
        try:
            shape = transform.shape(shape)
        except ValueError as error:
            raise ValueError(f"output {spec.name!r}: transform {name!r} {error}") from None


def _check_labels(spec: TensorSpec, classes: int) -> None:
    if spec.labels and classes > 1 and len(spec.labels) != classes:
        raise ValueError(f"output {spec.name!r} has {len(spec.labels)} labels for {classes} scores")


def _check_detector(spec: TensorSpec, nms: Nms, outputs: Sequence[TensorSpec]) -> None:
    shapes = {other.name: other.shape for other in outputs if other.name != spec.name}
    for name in nms.consumed:
        if name not in shapes:
            raise ValueError(
                f"output {spec.name!r}: 'nms' names the output {name!r}, but the others are "
                f"{', '.join(shapes) or 'none'}"
            )
    scores = shapes.get(nms.scores)
    if scores is not None:
        least = (1, 2) if nms.classes else (2, 3)
        if len(scores) not in (*least, 3):
            raise ValueError(
                f"output {spec.name!r}: 'nms' takes scores of shape [batch, rows"
                f"{'' if nms.classes else ', classes'}], but {nms.scores!r} has {list(scores)}"
            )
        axis = -1 if nms.transposed else -2
        here = spec.shape[axis]
        there = scores[-1] if nms.classes else scores[axis]
        if -1 not in (here, there) and here != there:
            raise ValueError(
                f"output {spec.name!r} has {here} boxes, but {nms.scores!r} scores for {there}"
            )
    classes = nms.class_count(spec.shape, scores)
    _check_labels(spec, classes)
    if nms.background is not None and classes != -1 and nms.background >= classes:
        raise ValueError(
            f"output {spec.name!r}: 'nms' has the background {nms.background} of {classes} classes"
        )


def _check_autoencoder(
    spec: TensorSpec, transform: ReconstructionError, inputs: Sequence[TensorSpec]
) -> None:
    shapes = {given.name: given.shape for given in inputs}
    if not transform.input and len(shapes) > 1:
        raise ValueError(
            f"output {spec.name!r}: 'reconstruction_error' must say which 'input' of "
            f"{', '.join(shapes)} it is compared with"
        )
    name = transform.input or next(iter(shapes))
    if name not in shapes:
        raise ValueError(
            f"output {spec.name!r}: 'reconstruction_error' names the input {name!r}, but there is "
            f"{', '.join(shapes)}"
        )
    if not _could_be(spec.shape, shapes[name]):
        raise ValueError(
            f"output {spec.name!r} of shape {list(spec.shape)} cannot be compared with the input "
            f"{name!r} of shape {list(shapes[name])}"
        )


def _could_be(made: tuple[int, ...], declared: tuple[int, ...]) -> bool:
    return len(made) == len(declared) and all(
        -1 in pair or pair[0] == pair[1] for pair in zip(made, declared, strict=True)
    )


def _batched(shape: tuple[int, ...]) -> list[Any]:
    return [1, *shape]
