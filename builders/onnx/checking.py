"""What a source model is checked for before anything is made of it."""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING

import onnx
import onnx.inliner

from edgectl.build.kit.onnxfile import check_operators, check_weights, opset_of
from edgectl.build.protocol import RefusalError
from external import does_not_load, read_source

if TYPE_CHECKING:
    from pathlib import Path

OLDEST_OPSET = 7
"""The oldest that ONNX Runtime reads (its docs/Versioning.md)."""
MAX_TENSOR_BYTES = 2 << 30
"""Of anything that the model computes on the way: more than the devices here have."""


def load_model(path: Path) -> onnx.ModelProto:
    """Read and check a model, a file or a directory; refuses what is not one, or is not whole."""
    model = read_source(path)
    if opset_of(model) < OLDEST_OPSET:
        raise RefusalError(
            "opset-too-old",
            f"the model is of opset {opset_of(model)}, the oldest that is read is {OLDEST_OPSET}",
            hint="export the model again with opset 17",
        )
    check_names(model.graph)
    if model.functions:
        model = inline_functions(model)
    check_operators(model)
    check_order(model.graph)
    try:
        onnx.checker.check_model(model)
    except onnx.checker.ValidationError as error:
        raise does_not_load(error) from error
    check_weights(model)
    return model


def inline_functions(model: onnx.ModelProto) -> onnx.ModelProto:
    """Put the body of every function of the model's own in the place of its calls."""
    try:
        return onnx.inliner.inline_local_functions(model)
    except Exception as error:
        raise does_not_load(error) from error


def check_names(graph: onnx.GraphProto) -> None:
    """Refuse two outputs of one name: which of them a name means is chance."""
    for what, names in (
        ("inputs", [value.name for value in graph.input]),
        ("outputs", [value.name for value in graph.output]),
        ("tensors", [name for node in graph.node for name in node.output if name]),
    ):
        twice = next((name for name, count in Counter(names).items() if count > 1), None)
        if twice is not None:
            raise RefusalError(
                "name-twice",
                f"two {what} of the model have the name {twice!r}",
                node=twice,
                hint="give every tensor a name of its own, and export again",
            )


def check_order(graph: onnx.GraphProto, outer: frozenset[str] = frozenset()) -> None:
    """Refuse a node that reads what only it, or a node after it, computes: a cycle."""
    known = {value.name for value in graph.input} | {tensor.name for tensor in graph.initializer}
    known |= outer | {tensor.values.name for tensor in graph.sparse_initializer} | {""}
    made = {name for node in graph.node for name in node.output}
    for index, node in enumerate(graph.node):
        late = next((name for name in node.input if name not in known), None)
        if late is not None:
            why = (
                "is computed after it: the graph has a cycle, or is out of order"
                if late in made
                else "nothing computes"
            )
            raise RefusalError(
                "not-ordered",
                f"node reads {late!r}, which {why}",
                node=node.name or f"{node.op_type} number {index}",
                hint="export the model again: the nodes of an ONNX graph stand in their order",
            )
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                if inner.node or inner.output:
                    check_order(inner, frozenset(known))
        known.update(node.output)


def check_tensor_sizes(model: onnx.ModelProto) -> None:
    """Refuse a model that computes a tensor larger than MAX_TENSOR_BYTES; needs inferred shapes."""
    makers = {name: node for node in model.graph.node for name in node.output}
    for value in (*model.graph.value_info, *model.graph.output, *model.graph.input):
        tensor = value.type.tensor_type
        if not tensor.elem_type or tensor.elem_type == onnx.TensorProto.STRING:
            continue
        item = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type).itemsize
        size = item * math.prod(max(d.dim_value, 1) for d in tensor.shape.dim)
        if size > MAX_TENSOR_BYTES:
            node = makers.get(value.name)
            raise RefusalError(
                "tensor-too-large",
                f"tensor {value.name!r} would be {size} bytes",
                node=(node.name or node.op_type) if node else value.name,
                hint="is the shape right? use smaller inputs or a smaller batch",
            )
