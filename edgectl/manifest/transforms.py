"""A model's declared transforms, checked by the engine that will run them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from edgectl.engine.transforms import asset_names, check, check_together
from edgectl.engine.transforms.registry import read_post, read_pre

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from edgectl.engine.signature import TensorSpec
    from edgectl.manifest.model import Model

    Path = tuple[str | int, ...]
    Fault = tuple[Path, str]


def transform_faults(model: Model) -> Iterator[Fault]:
    """Each wrong field with what is wrong: unknown transforms and parameters at their entry; of
    tensors without those, a wrong order or a result that does not fit the tensor; of a model
    without any of those, other tensors and files that its transforms name and it does not have."""
    faults = [*_tensor_faults(model)]
    yield from faults
    if not faults:
        yield from _asset_faults(model)
        try:
            check_together(
                [tensor.spec() for tensor in model.spec.inputs],
                [tensor.spec() for tensor in model.spec.outputs],
            )
        except ValueError as error:
            yield ("spec", "outputs"), str(error)


def _asset_faults(model: Model) -> Iterator[Fault]:
    assets = model.spec.assets
    for number, tensor in enumerate(model.spec.inputs):
        for name in asset_names(tensor.spec()):
            if name not in assets:
                declared = ", ".join(assets) or "none"
                yield (
                    ("spec", "inputs", number, "preprocess"),
                    f"names the file {name!r}, which must be one of spec.assets ({declared})",
                )


def _tensor_faults(model: Model) -> Iterator[Fault]:
    for number, tensor in enumerate(model.spec.inputs):
        at: Path = ("spec", "inputs", number)
        yield from _faults(tensor.spec(), "input", (*at, "preprocess"), read_pre)
    for number, tensor_out in enumerate(model.spec.outputs):
        at = ("spec", "outputs", number)
        yield from _faults(tensor_out.spec(), "output", (*at, "postprocess"), read_post)


def _faults(
    spec: TensorSpec, role: Literal["input", "output"], at: Path, read: Callable[[Any], object]
) -> Iterator[Fault]:
    fine = True
    for position, declared in enumerate(spec.transforms):
        try:
            read(declared)
        except ValueError as error:
            fine = False
            yield (*at, position), str(error)
    if fine:
        try:
            check(spec, role)
        except ValueError as error:
            yield at[:-1], str(error)
