"""Average precision of a detector, apart from edgectl, so that the two can be compared."""

import numpy as np

_IOUS = np.arange(0.5, 1.0, 0.05)
_RECALLS = np.linspace(0, 1, 101)


def average_precision(
    boxes: np.ndarray,
    scores: np.ndarray,
    true_boxes: np.ndarray,
    true_classes: np.ndarray,
    *,
    threshold: float,
    suppress: float = 0.5,
) -> tuple[float, float]:
    """Mean average precision at IoU 0.5, and over 0.5 to 0.95, as COCO has it.

    boxes [n, cells, 4], scores [n, cells, classes]; true_boxes [n, most, 4] and true_classes
    [n, most], padded with -1. Each cell is found as its best class.
    """
    kinds = range(scores.shape[2])
    found = [
        _kept(box, score, threshold, suppress) for box, score in zip(boxes, scores, strict=True)
    ]
    table = [
        [_of_class(found, true_boxes, true_classes, kind, iou) for iou in _IOUS] for kind in kinds
    ]
    mean = np.nanmean(np.array(table), axis=0)
    return float(mean[0]), float(mean.mean())


def _ious(box: np.ndarray, others: np.ndarray) -> np.ndarray:
    shared = np.minimum(box[2:], others[:, 2:]) - np.maximum(box[:2], others[:, :2])
    both = shared.clip(0).prod(axis=1)
    areas = (others[:, 2:] - others[:, :2]).prod(axis=1)
    return both / ((box[2:] - box[:2]).prod() + areas - both)


def _kept(boxes: np.ndarray, scores: np.ndarray, threshold: float, suppress: float) -> list[tuple]:
    """(score, class, box) of what greedy suppression leaves, best first."""
    best = scores.max(axis=1)
    kept: list[tuple] = []
    for cell in np.argsort(-best, kind="stable"):
        if best[cell] < threshold:
            break
        kind = int(scores[cell].argmax())
        same = np.array([box for _, other, box in kept if other == kind]).reshape(-1, 4)
        if not (_ious(boxes[cell], same) > suppress).any():
            kept.append((float(best[cell]), kind, boxes[cell]))
    return kept


def _of_class(
    found: list[list[tuple]],
    true_boxes: np.ndarray,
    true_classes: np.ndarray,
    kind: int,
    iou: float,
) -> float:
    truth = [box[classes == kind] for box, classes in zip(true_boxes, true_classes, strict=True)]
    total = sum(len(each) for each in truth)
    if total == 0:
        return float("nan")
    taken = [np.zeros(len(each), bool) for each in truth]
    guesses = sorted(
        (
            (score, row, box)
            for row, each in enumerate(found)
            for score, found_kind, box in each
            if found_kind == kind
        ),
        key=lambda guess: -guess[0],
    )
    right = np.zeros(len(guesses))
    for number, (_, row, box) in enumerate(guesses):
        free = np.where(taken[row], -1.0, _ious(box, truth[row]))
        if len(free) and free.max() >= iou:
            taken[row][free.argmax()] = True
            right[number] = 1
    hits = right.cumsum()
    precision = hits / np.arange(1, len(hits) + 1)
    precision = np.maximum.accumulate(precision[::-1])[::-1]
    place = np.searchsorted(hits / total, _RECALLS, side="left")
    return float(np.append(precision, 0.0)[np.minimum(place, len(precision))].mean())
