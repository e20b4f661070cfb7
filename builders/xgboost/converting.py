"""A forest as an ONNX model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgectl.build.kit import onnxfile

if TYPE_CHECKING:
    from forest import Forest
    from objectives import Link

OPSET = 17
"""Read by ONNX Runtime from 1.12."""
ML_OPSET = 3
"""TreeEnsembleRegressor with float thresholds."""


def convert(
    forest: Forest, link: Link, name: str, feature: dict[str, Any], output: dict[str, Any]
) -> onnx.ModelProto:
    """The model, from `feature` [-1, features] to `output`: [-1, outputs], [-1] for one output, or
    [-1, 2] for the probabilities of both classes where the forest gives that of one."""
    nodes = [_ensemble(forest, link, feature["name"])]
    constants: list[onnx.TensorProto] = []
    for operator in link.operators:
        nodes.append(_apply(operator, nodes[-1].output[0], constants))
    if output["shape"] == [-1, 2] and forest.outputs == 1:
        nodes += _both_classes(nodes[-1].output[0], constants)
    elif output["shape"] == [-1]:
        constants.append(numpy_helper.from_array(np.array([-1], np.int64), "flat"))
        nodes.append(helper.make_node("Reshape", [nodes[-1].output[0], "flat"], ["scores"]))
    nodes[-1].output[0] = output["name"]
    graph = helper.make_graph(
        nodes,
        name,
        [_value(feature)],
        [_value(output)],
        constants,
    )
    opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid("ai.onnx.ml", ML_OPSET)]
    model = helper.make_model(graph, opset_imports=opsets)
    onnxfile.finish(model, name)
    onnx.checker.check_model(model, full_check=True)
    return model


def _value(spec: dict[str, Any]) -> onnx.ValueInfoProto:
    shape = [None if size == -1 else size for size in spec["shape"]]
    return helper.make_tensor_value_info(spec["name"], TensorProto.FLOAT, shape)


def _ensemble(forest: Forest, link: Link, name: str) -> onnx.NodeProto:
    """All trees in one node: below the threshold is true, and NaN goes where XGBoost sends it."""
    trees = forest.trees
    sizes = [len(tree.left) for tree in trees]
    leaf = np.concatenate([tree.left for tree in trees]) < 0
    tree_ids = np.repeat(np.arange(len(trees)), sizes)
    node_ids = np.concatenate([np.arange(size) for size in sizes])
    values = np.concatenate([tree.value for tree in trees])
    targets = np.repeat([tree.output for tree in trees], sizes)
    return helper.make_node(
        "TreeEnsembleRegressor",
        [name],
        ["margins"],
        domain="ai.onnx.ml",
        n_targets=forest.outputs,
        aggregate_function="SUM",
        post_transform="NONE",
        base_values=link.margin(forest.base_score).tolist(),
        nodes_treeids=tree_ids.tolist(),
        nodes_nodeids=node_ids.tolist(),
        nodes_modes=np.where(leaf, "LEAF", "BRANCH_LT").tolist(),
        nodes_featureids=np.concatenate([tree.feature for tree in trees]).tolist(),
        nodes_values=np.where(leaf, np.float32(0), values).tolist(),
        nodes_truenodeids=np.maximum(np.concatenate([t.left for t in trees]), 0).tolist(),
        nodes_falsenodeids=np.maximum(np.concatenate([t.right for t in trees]), 0).tolist(),
        nodes_missing_value_tracks_true=np.concatenate([t.default_left for t in trees])
        .astype(np.int64)
        .tolist(),
        target_treeids=tree_ids[leaf].tolist(),
        target_nodeids=node_ids[leaf].tolist(),
        target_ids=targets[leaf].tolist(),
        target_weights=values[leaf].tolist(),
    )


def _apply(operator: str, tensor: str, constants: list[onnx.TensorProto]) -> onnx.NodeProto:
    result = operator.lower()
    if operator == "Softmax":
        return helper.make_node(operator, [tensor], [result], axis=1)
    if operator == "Greater":
        constants.append(numpy_helper.from_array(np.float32(0), "zero"))
        return helper.make_node(operator, [tensor, "zero"], [result])
    if operator == "Cast":
        return helper.make_node(operator, [tensor], [result], to=TensorProto.FLOAT)
    return helper.make_node(operator, [tensor], [result])


def _both_classes(tensor: str, constants: list[onnx.TensorProto]) -> list[onnx.NodeProto]:
    constants.append(numpy_helper.from_array(np.float32(1), "one"))
    return [
        helper.make_node("Sub", ["one", tensor], ["negative"]),
        helper.make_node("Concat", ["negative", tensor], ["both"], axis=1),
    ]
