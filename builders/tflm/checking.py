"""What TensorFlow Lite Micro asks of a model: operators, integers, static shapes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgectl.build.kit.wording import listed
from edgectl.build.protocol import RefusalError
from edgectl.engine.errors import UnsupportedError
from edgectl.engine.tflm import TflmSession, check_operators
from edgectl.engine.tflm_operators import STATEFUL

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from edgectl.engine.signature import TensorSpec
    from edgectl.engine.tflm_file import Graph, Model, Operator, Tensor

_FLOATS = frozenset({"FLOAT16", "BFLOAT16", "FLOAT32", "FLOAT64"})
_INT8_HINT = (
    "build it with precision int8, and give the Target quantization {scheme: static, boundary: "
    "int8}; the Model needs spec.calibration"
)


def check_model(model: Model, name: str) -> None:
    """Refuse what a microcontroller cannot run, naming the operator or tensor that is why."""
    _check_supported(model, name)
    _check_shapes(model, name)
    _check_integers(model, name)


def _check_supported(model: Model, name: str) -> None:
    try:
        check_operators(model, name)
    except UnsupportedError as error:
        raise RefusalError(
            "unsupported-operator",
            str(error),
            node=error.node,
            hint="replace the operator in the model by ones that TensorFlow Lite Micro has "
            "(docs/engines/tflm.md lists them), or move it into spec.outputs.postprocess",
        ) from error
    for operator in model.operators:
        if operator.name in STATEFUL:
            raise RefusalError(
                "resource-variables",
                f"{name}: {operator.place} keeps a resource variable, which the emitted project "
                "has no memory for",
                node=operator.place,
                hint="make the state an input and an output of the model",
            )


def _check_shapes(model: Model, name: str) -> None:
    for graph in model.graphs:
        for tensor, operator in _used(graph):
            # A free batch is what the converter writes for any model; the file's shape has 1.
            free = [place for place, size in enumerate(tensor.signature) if size < 0]
            if free and (free != [0] or tensor.shape[0] != 1):
                raise RefusalError(
                    "dynamic-shape",
                    f"{name}: tensor {tensor.name!r} has the shape {list(tensor.signature)}; "
                    "the memory of a microcontroller is laid out before it runs",
                    node=operator.place if operator else tensor.name,
                    hint="fix every size but the batch in spec.inputs of the Model and in the "
                    "model itself",
                )


def _check_integers(model: Model, name: str) -> None:
    for graph in model.graphs:
        for tensor, operator in _used(graph):
            if tensor.type not in _FLOATS:
                continue
            edge = operator is None or operator.name in ("QUANTIZE", "DEQUANTIZE")
            what = f"{operator.place}: " if operator else "the boundary: "
            raise RefusalError(
                "float-boundary" if edge else "not-full-integer",
                f"{name} is not all integer; {what}tensor {tensor.name!r} is {tensor.type}",
                node=operator.place if operator else tensor.name,
                hint=_INT8_HINT,
            )


def _used(graph: Graph) -> Iterator[tuple[Tensor, Operator | None]]:
    """Each tensor that an operator touches, with that operator, and then the graph's own ends."""
    for operator in graph.operators:
        for index in (*operator.inputs, *operator.outputs):
            if index >= 0:
                yield graph.tensors[index], operator
    for index in (*graph.inputs, *graph.outputs):
        yield graph.tensors[index], None


def check_signature(session: TflmSession, params: dict[str, Any], name: str) -> None:
    """Refuse a file whose inputs and outputs are not those that the manifest declares."""
    for role, specs in (("inputs", session.inputs), ("outputs", session.outputs)):
        _check_ports(role, specs, params.get(role) or [], name)


def _check_ports(
    role: str, specs: Sequence[TensorSpec], declared: list[dict[str, Any]], name: str
) -> None:
    found = {spec.name: spec for spec in specs}
    hint = f"correct spec.{role} of the Model"
    for spec in declared:
        actual = found.pop(spec["name"], None)
        if actual is None:
            raise RefusalError(
                "signature-differs",
                f"{name} has no tensor {spec['name']!r} among its {role}: "
                f"{listed([other.name for other in specs])}",
                node=spec["name"],
                hint=hint,
            )
        same = len(actual.shape) == len(spec["shape"]) and all(
            -1 in pair or pair[0] == pair[1]
            for pair in zip(actual.shape, spec["shape"], strict=True)
        )
        if not same or actual.datatype != spec["datatype"]:
            raise RefusalError(
                "signature-differs",
                f"{name}: {spec['name']!r} is {actual.datatype} {list(actual.shape)} in the file, "
                f"{spec['datatype']} {spec['shape']} in the manifest",
                node=spec["name"],
                hint=hint,
            )
    if found and role == "inputs":
        raise RefusalError(
            "signature-differs",
            f"{name} takes more than the manifest declares: {listed(list(found))}",
            node=next(iter(found)),
            hint=hint,
        )
