"""The trees of an XGBoost document, checked: every index in range, every node reached once.

The schema is XGBoost's (https://xgboost.readthedocs.io, "Introduction to Model IO").
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from edgectl.build.kit.wording import first_line
from edgectl.build.protocol import RefusalError

if TYPE_CHECKING:
    from numpy.typing import NDArray

MAX_NODES = 20_000_000
MAX_OUTPUTS = 10_000
_LEAF = -1
_UNREAD = ("base_weights", "loss_changes", "sum_hessian", "parents")
"""Arrays by node that XGBoost reads and the conversion does not."""


@dataclass(frozen=True, slots=True)
class Tree:
    """One regression tree; arrays of one value for each node, [nodes], the root first."""

    left: NDArray[np.int64]
    """Child for values below the threshold, -1 at a leaf."""
    right: NDArray[np.int64]
    feature: NDArray[np.int64]
    value: NDArray[np.float32]
    """Threshold of a split, score of a leaf."""
    default_left: NDArray[np.bool_]
    """Where a missing value (NaN) goes."""
    output: int


@dataclass(frozen=True, slots=True)
class Forest:
    """A boosted forest: an output's margin is its base score and the scores of its trees."""

    trees: tuple[Tree, ...]
    features: int
    outputs: int
    objective: str
    base_score: NDArray[np.float32]
    """[outputs], as the file says it: what `objectives` makes a margin of."""
    iterations: int
    """Of boosting that are kept: up to the best one where training stopped early."""


def build(document: dict[str, Any]) -> Forest:
    """The checked forest of a document; refuses what ONNX has no form for, and what is forged or
    damaged (`does-not-load`)."""
    try:
        return _build(document["learner"])
    except (KeyError, TypeError, ValueError, OverflowError, AttributeError, IndexError) as error:
        raise _malformed(f"{type(error).__name__}: {first_line(error)}") from error


def _build(learner: dict[str, Any]) -> Forest:
    booster = learner["gradient_booster"]
    shares = None
    if booster["name"] == "dart":
        shares, booster = booster["weight_drop"], booster["gbtree"]
    elif booster["name"] != "gbtree":
        raise RefusalError(
            "unsupported-booster",
            f"the model is of booster {booster['name']!r}, which has no trees",
            node=booster["name"],
            hint="train with booster='gbtree' or 'dart'; for a linear model use scikit-learn's",
        )
    model, params = booster["model"], learner["learner_model_param"]
    features = int(params["num_feature"])
    outputs = max(int(params["num_class"]), int(params.get("num_target", 1)), 1)
    if not 0 < features < 2**31 or outputs > MAX_OUTPUTS:
        raise ValueError(f"{features} features, {outputs} outputs")
    count, parallel = _tree_counts(model, outputs)
    best = learner.get("attributes", {}).get("best_iteration")
    iterations = count // parallel if best is None else min(int(best) + 1, count // parallel)
    if iterations < 1:
        raise ValueError(f"{count} trees, {parallel} in each iteration, {best} the best iteration")
    names = learner.get("feature_names") or [f"f{place}" for place in range(features)]
    trees = []
    for place in range(iterations * parallel):
        tree = _tree(model["trees"][place], int(model["tree_info"][place]), features, names)
        if not 0 <= tree.output < outputs:
            raise ValueError(f"tree {place} is for output {tree.output} of {outputs}")
        trees.append(tree if shares is None else _scaled(tree, np.float32(shares[place])))
    return Forest(
        tuple(trees),
        features,
        outputs,
        str(learner["objective"]["name"]),
        _base_score(str(params["base_score"]), outputs),
        iterations,
    )


def _tree_counts(model: dict[str, Any], outputs: int) -> tuple[int, int]:
    """Trees in all, and in each iteration of boosting."""
    count = len(model["trees"])
    param = model["gbtree_model_param"]
    if not count or count != len(model["tree_info"]) or count != int(param["num_trees"]):
        raise ValueError(f"{count} trees, {len(model['tree_info'])} outputs of trees")
    nodes = sum(len(tree["left_children"]) for tree in model["trees"])
    if nodes > MAX_NODES:
        raise ValueError(f"{nodes} nodes, more than {MAX_NODES}")
    if any(int(tree["tree_param"]["size_leaf_vector"]) > 1 for tree in model["trees"]):
        raise RefusalError(
            "unsupported-trees",
            "each leaf of the model holds a score for every output",
            hint="train with multi_strategy='one_output_per_tree'",
        )
    return count, outputs * int(param.get("num_parallel_tree") or 1)


def _base_score(text: str, outputs: int) -> NDArray[np.float32]:
    """XGBoost 3 writes a list in a text, those before it one number."""
    values = np.array(json.loads(text), np.float32).reshape(-1)
    if values.size not in (1, outputs) or not np.isfinite(values).all():
        raise ValueError(f"base_score {text[:100]!r} for {outputs} outputs")
    return np.broadcast_to(values, (outputs,)).copy()


def _tree(tree: dict[str, Any], output: int, features: int, names: list[str]) -> Tree:
    left, right, feature = (
        np.array(tree[key], np.int64)
        for key in ("left_children", "right_children", "split_indices")
    )
    value = np.array(tree["split_conditions"], np.float32)
    default_left = np.array(tree["default_left"], np.bool_)
    kind = np.array(tree.get("split_type") or np.zeros(len(left)), np.int64)
    nodes = (int(tree["tree_param"]["num_nodes"]),)
    kept = (np.shape(tree[key]) for key in _UNREAD if key in tree)
    shapes = {array.shape for array in (left, right, feature, value, default_left, kind)}
    if shapes.union(kept) != {nodes}:
        raise ValueError("the arrays of a tree differ in length")
    order = _reached(left, right)
    splits = order[left[order] != _LEAF]
    if ((feature[splits] < 0) | (feature[splits] >= features)).any():
        raise ValueError("a split is on a feature that the model does not have")
    if (kind[splits] != 0).any():
        name = str(names[int(feature[splits[kind[splits] != 0][0]])])
        raise RefusalError(
            "categorical-split",
            f"feature {name!r} is split by categories, which this builder does not convert",
            node=name,
            hint="train on one-hot or ordinal columns in its place (enable_categorical=False)",
        )
    if np.isnan(value[order]).any() or np.isinf(value[order][left[order] == _LEAF]).any():
        raise RefusalError(
            "weights-not-finite",
            "a tree has a leaf or a threshold that is NaN or infinite",
            hint="the training diverged: train again with a smaller learning rate",
        )
    place = np.full(len(left), _LEAF, np.int64)
    place[order] = np.arange(len(order))
    inner = left[order] != _LEAF
    return Tree(
        np.where(inner, place[left[order]], _LEAF),
        np.where(inner, place[right[order]], _LEAF),
        np.where(inner, feature[order], 0),
        value[order],
        default_left[order] & inner,
        output,
    )


def _reached(left: NDArray[np.int64], right: NDArray[np.int64]) -> NDArray[np.int64]:
    """The nodes below the root, parents first; pruned ones, which nothing leads to, drop out."""
    seen = np.zeros(len(left), np.bool_)
    order: list[int] = []
    waiting = [0]
    while waiting:
        node = waiting.pop()
        if not 0 <= node < len(left) or seen[node]:
            raise ValueError(f"node {node} of {len(left)} is reached twice or is not there")
        seen[node] = True
        order.append(node)
        if (left[node] == _LEAF) != (right[node] == _LEAF):
            raise ValueError(f"node {node} has one child")
        if left[node] != _LEAF:
            waiting += [int(right[node]), int(left[node])]
    return np.array(order, np.int64)


def _scaled(tree: Tree, share: np.float32) -> Tree:
    """The tree with its leaves scaled, as DART's dropout left them."""
    value = np.where(tree.left == _LEAF, tree.value * share, tree.value)
    return Tree(tree.left, tree.right, tree.feature, value, tree.default_left, tree.output)


def _malformed(why: str) -> RefusalError:
    return RefusalError(
        "does-not-load",
        f"the file is not a model that XGBoost could have saved: {why}",
        hint='save it again with model.save_model("model.json")',
    )
