"""ONNX graphs as a whole: walking them, and writing them without a trace of where and when."""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def graphs_of(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """A graph and every graph inside its control-flow nodes."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                if inner.node or inner.initializer:
                    yield from graphs_of(inner)


def tensors_of(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    """Every constant: initializers and tensor attributes, inner graphs included."""
    for inner in graphs_of(graph):
        yield from inner.initializer
        for node in inner.node:
            for attribute in node.attribute:
                if attribute.HasField("t"):
                    yield attribute.t
                yield from attribute.tensors


def opset_of(model: onnx.ModelProto) -> int:
    """The version of the standard operators that a model uses."""
    return max((o.version for o in model.opset_import if o.domain in {"", "ai.onnx"}), default=1)


def finish(model: onnx.ModelProto, name: str) -> None:
    """Strip what a clock, a path or a chance put in, and name the rest by position."""
    for graph in graphs_of(model.graph):
        graph.doc_string = ""
        del graph.metadata_props[:]
        for value in (*graph.input, *graph.output, *graph.value_info):
            value.doc_string = ""
        for tensor in graph.initializer:
            tensor.doc_string = ""
        for index, node in enumerate(graph.node):
            node.name = f"{node.op_type}_{index}"
            node.doc_string = ""
            del node.metadata_props[:]
    model.graph.name = name
    model.doc_string = ""
    model.producer_name = "edgectl"
    model.producer_version = ""
    model.domain = ""
    model.model_version = 0
    del model.metadata_props[:]
    used = {node.domain for graph in graphs_of(model.graph) for node in graph.node} | {""}
    kept = sorted(
        ((o.domain if o.domain != "ai.onnx" else "", o.version) for o in model.opset_import),
    )
    del model.opset_import[:]
    model.opset_import.extend(
        onnx.helper.make_opsetid(domain, version) for domain, version in kept if domain in used
    )
    # The oldest IR that can say this opset: an engine of last year has to read it.
    model.ir_version = onnx.helper.find_min_ir_version_for(model.opset_import, ignore_unknown=True)


def save(model: onnx.ModelProto, path: Path) -> None:
    """Write deterministic bytes."""
    path.write_bytes(model.SerializeToString(deterministic=True))
