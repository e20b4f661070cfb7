"""A model's inputs and outputs as the manifest declares them: names, datatypes and shapes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgectl.build.kit.wording import first_line, listed
from edgectl.build.protocol import RefusalError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import openvino as ov

_TYPES = {
    "BOOL": "boolean", "UINT8": "u8", "UINT16": "u16", "UINT32": "u32", "UINT64": "u64",
    "INT8": "i8", "INT16": "i16", "INT32": "i32", "INT64": "i64",
    "FP16": "f16", "FP32": "f32", "FP64": "f64",
}  # fmt: skip


def declare(
    model: ov.Model, inputs: Sequence[dict[str, Any]], outputs: Sequence[dict[str, Any]]
) -> None:
    """Give the model's ports the declared names and shapes, in place.

    Ports are found by the declared names where the model has all of them, else by position.
    Refuses another number of ports, another datatype, and shapes that the model cannot take
    (`signature-differs`).
    """
    taken = _matched(model.inputs, inputs, "inputs")
    given = _matched(model.outputs, outputs, "outputs")
    for port, spec in zip((*taken, *given), (*inputs, *outputs), strict=True):
        _check_type(port, spec)
    try:
        model.reshape({port: spec["shape"] for port, spec in zip(taken, inputs, strict=True)})
    except RuntimeError as error:
        shapes = {spec["name"]: spec["shape"] for spec in inputs}
        raise RefusalError(
            "signature-differs",
            f"the model does not take inputs of the shapes {shapes}: {first_line(error)}",
            node=inputs[0]["name"],
            hint="correct spec.inputs of the Model; -1 is a free dimension, which the model must "
            "be exported with",
        ) from error
    for port, spec in zip(given, outputs, strict=True):
        _check_shape(port, spec)
    _name(model, taken, given, [*inputs, *outputs])


def _matched(
    ports: Sequence[ov.Output], declared: Sequence[dict[str, Any]], what: str
) -> list[ov.Output]:
    """The ports in the order of the manifest."""
    by_name = {name: port for port in ports for name in port.get_names()}
    names = [spec["name"] for spec in declared]
    if len(ports) != len(declared):
        raise RefusalError(
            "signature-differs",
            f"the model has {len(ports)} {what} ({listed(sorted(by_name))}), the manifest declares "
            f"{len(declared)} ({listed(names)})",
            hint=f"correct spec.{what} of the Model",
        )
    if all(name in by_name for name in names):
        return [by_name[name] for name in names]
    return list(ports)


def _check_type(port: ov.Output, spec: dict[str, Any]) -> None:
    found = port.get_element_type().get_type_name()
    if found != _TYPES.get(spec["datatype"]):
        raise RefusalError(
            "signature-differs",
            f"{spec['name']!r} is {found} in the model, {spec['datatype']} in the manifest",
            node=spec["name"],
            hint="correct the datatype in the Model",
        )


def _check_shape(port: ov.Output, spec: dict[str, Any]) -> None:
    partial = port.get_partial_shape()
    if partial.rank.is_dynamic:
        return
    sizes = [-1 if size.is_dynamic else size.get_length() for size in partial]
    fits = len(sizes) == len(spec["shape"]) and all(
        have in (-1, want) for have, want in zip(sizes, spec["shape"], strict=True)
    )
    if not fits:
        raise RefusalError(
            "signature-differs",
            f"{spec['name']!r} is {sizes} in the model, {spec['shape']} in the manifest",
            node=spec["name"],
            hint="correct spec.outputs of the Model; -1 is a free dimension, which the model must "
            "be exported with",
        )


def _name(
    model: ov.Model,
    taken: Sequence[ov.Output],
    given: Sequence[ov.Output],
    specs: Sequence[dict[str, Any]],
) -> None:
    """Name the ports and nothing else: a tensor inside may have a declared name already."""
    for node in model.get_ops():
        for output in node.outputs():
            output.get_tensor().set_names(set())
    for port, spec in zip((*taken, *given), specs, strict=True):
        port.get_tensor().set_names({spec["name"]})
    for port, spec in zip(taken, specs[: len(taken)], strict=True):
        port.get_node().set_friendly_name(spec["name"])
