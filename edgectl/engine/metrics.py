"""Task metrics as pure functions of numpy arrays; the same numbers as scikit-learn's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from edgectl.engine.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray


def classification(labels: NDArray[Any], scores: NDArray[Any]) -> dict[str, float]:
    """Metrics of class indices, shape [rows], against scores.

    Scores are [rows, classes], [rows, 1] or [rows] of the positive class (from 0.5 on it counts as
    positive), or whole numbers [rows], which are the predicted classes themselves. The result has
    `accuracy` and `f1` (of class 1 with two classes, macro-averaged with more), `auc` with two
    classes and scores, and `top3` and `top5` with more classes than that. Raises InputError if they
    do not fit.
    """
    if scores.ndim == 2 and scores.shape[1] == 1:
        scores = scores[:, 0]
    if len(scores) != len(labels) or scores.ndim not in (1, 2):
        raise InputError(f"{len(labels)} labels do not fit scores of shape {list(scores.shape)}")
    predicted = predicted_classes(scores)
    classes = scores.shape[1] if scores.ndim == 2 else int(max(predicted.max(), labels.max())) + 1
    if labels.min() < 0 or labels.max() >= max(classes, 2):
        raise InputError(f"labels from {labels.min()} to {labels.max()} for {classes} classes")
    metrics = {
        "accuracy": float((predicted == labels).mean()),
        "f1": f1(labels, predicted, classes),
    }
    if classes <= 2 and scores.dtype.kind == "f" and len(np.unique(labels)) == 2:
        metrics["auc"] = auc(labels, scores[:, 1] - scores[:, 0] if scores.ndim == 2 else scores)
    for k in (3, 5):
        if classes > k and scores.ndim == 2:
            metrics[f"top{k}"] = top_k_accuracy(labels, scores, k)
    return metrics


def regression(wanted: NDArray[Any], got: NDArray[Any]) -> dict[str, float]:
    """Mean absolute error, root mean squared error and R²; both arrays of as many values."""
    if wanted.size != got.size:
        raise InputError(f"{wanted.size} labels do not fit an output of shape {list(got.shape)}")
    wanted, got = wanted.astype(np.float64).ravel(), got.astype(np.float64).ravel()
    error = got - wanted
    spread = float(((wanted - wanted.mean()) ** 2).sum())
    metrics = {"mae": float(np.abs(error).mean()), "rmse": float(np.sqrt((error**2).mean()))}
    if spread > 0:
        metrics["r2"] = 1 - float((error**2).sum()) / spread
    return metrics


def ranking(wanted: NDArray[Any], scores: NDArray[Any]) -> dict[str, float]:
    """How high the one right item [rows] is among the scores [rows, items]: the share of rows that
    have it among the best ten, its discounted gain there, and the mean reciprocal rank.

    Ties are broken against the model. Raises InputError if they do not fit.
    """
    if scores.ndim != 2 or len(scores) != len(wanted):
        raise InputError(f"{len(wanted)} labels do not fit scores of shape {list(scores.shape)}")
    if wanted.min() < 0 or wanted.max() >= scores.shape[1]:
        raise InputError(
            f"labels from {wanted.min()} to {wanted.max()} for {scores.shape[1]} items"
        )
    right = scores[np.arange(len(wanted)), wanted]
    rank = (scores >= right[:, None]).sum(axis=1)
    near = rank <= 10
    return {
        "hit_rate@10": float(near.mean()),
        "ndcg@10": float(np.where(near, 1 / np.log2(rank + 1), 0).mean()),
        "mrr": float((1 / rank).mean()),
    }


def segmentation(wanted: NDArray[Any], scores: NDArray[Any]) -> dict[str, float]:
    """Mean intersection over union of the classes that occur, and the share of right pixels.

    `wanted` is [rows, height, width] of class indices, below 0 for pixels that do not count;
    `scores` is [rows, classes, height, width]. Raises InputError if they do not fit.
    """
    if scores.ndim != 4 or wanted.shape != (len(scores), *scores.shape[2:]):
        raise InputError(
            f"labels of shape {list(wanted.shape)} do not fit scores of shape {list(scores.shape)}"
        )
    counted = wanted >= 0
    found, wanted = scores.argmax(axis=1)[counted], wanted[counted]
    shares = [
        ((found == label) & (wanted == label)).sum() / ((found == label) | (wanted == label)).sum()
        for label in np.union1d(found, wanted)
    ]
    return {"miou": float(np.mean(shares)), "accuracy": float((found == wanted).mean())}


def best_f1(labels: NDArray[Any], scores: NDArray[Any]) -> float:
    """F1 of class 1 at the threshold where it is greatest."""
    order = np.argsort(-scores, kind="stable")
    hits = np.cumsum(labels[order] == 1)
    last = np.append(np.diff(scores[order]) != 0, True)
    f1 = 2 * hits / (np.arange(1, len(labels) + 1) + int((labels == 1).sum()))
    return float(f1[last].max())


def predicted_classes(scores: NDArray[Any]) -> NDArray[Any]:
    """Class indices, [rows], from scores of any form that `classification` takes."""
    if scores.ndim == 2 and scores.shape[1] > 1:
        best: NDArray[Any] = scores.argmax(axis=1)
        return best
    if scores.dtype.kind in "iub":
        return scores.reshape(len(scores)).astype(np.int64)
    return (scores.reshape(len(scores)) >= 0.5).astype(np.int64)


def f1(labels: NDArray[Any], predicted: NDArray[Any], classes: int) -> float:
    """F1 of class 1 of two classes, else the mean over the classes that occur."""
    wanted = [1] if classes <= 2 else np.union1d(labels, predicted)
    values = []
    for label in wanted:
        hits = int(((predicted == label) & (labels == label)).sum())
        total = int((predicted == label).sum()) + int((labels == label).sum())
        values.append(2 * hits / total if total else 0.0)
    return float(np.mean(values))


def auc(labels: NDArray[Any], scores: NDArray[Any]) -> float:
    """Area under the ROC curve of class 1, by the Mann-Whitney statistic; ties count half."""
    positive = labels == 1
    count = int(positive.sum())
    _, place, size = np.unique(scores, return_inverse=True, return_counts=True)
    mean_rank = np.cumsum(size) - (size - 1) / 2
    rank_sum = float(mean_rank[place][positive].sum())
    return (rank_sum - count * (count + 1) / 2) / (count * (len(labels) - count))


def top_k_accuracy(labels: NDArray[Any], scores: NDArray[Any], k: int) -> float:
    """Share of rows whose label is among the k best scores, [rows, classes]; the lower index wins
    a tie."""
    best = np.argsort(-scores.astype(np.float64), axis=1, kind="stable")[:, :k]
    return float((best == labels[:, None]).any(axis=1).mean())


def class_indices(labels: NDArray[Any], names: Sequence[str]) -> NDArray[Any]:
    """Labels as class indices: whole numbers stay, texts are looked up among the names.

    Raises InputError for other dtypes and for a text that is no name.
    """
    flat = labels.reshape(len(labels), -1)
    if flat.shape[1] != 1:
        raise InputError(f"labels of shape {list(labels.shape)} are not one for each row")
    values = flat[:, 0]
    if values.dtype.kind in "iub":
        return values.astype(np.int64)
    if values.dtype.kind in "US":
        index = {name: position for position, name in enumerate(names)}
        texts = [str(text) for text in values.astype(np.str_)]
        if unknown := sorted(set(texts) - set(index)):
            raise InputError(f"label {unknown[0]!r} is not one of the model's: {list(names)}")
        return np.array([index[text] for text in texts], np.int64)
    raise InputError(f"labels of {values.dtype} are neither whole numbers nor texts")
