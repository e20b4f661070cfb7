"""Mean average precision of a detector, as COCO defines it (cocodataset.org, "Detection
Evaluation").

Average precision is the area under the interpolated precision-recall curve, sampled at 101 recalls;
`map` is its mean over the overlaps 0.50, 0.55 ... 0.95 and over the classes that occur.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from edgectl.engine.transforms import Detections

OVERLAPS = np.arange(0.5, 1.0, 0.05)
_RECALLS = np.linspace(0.0, 1.0, 101)


def mean_average_precision(
    found: Sequence[Detections], boxes: NDArray[Any], classes: NDArray[Any]
) -> dict[str, float]:
    """`map50` and `map` of detections against the truth.

    `boxes` is [pictures, most, 4] as x1, y1, x2, y2 in the detections' pixels, `classes`
    [pictures, most]; a class below 0 is padding. Both are 0 where nothing is to be found.
    """
    present = [int(label) for label in np.unique(classes) if label >= 0]
    table = np.array([_precisions(found, boxes, classes, label) for label in present]).reshape(
        len(present), len(OVERLAPS)
    )
    if not present:
        return {"map50": 0.0, "map": 0.0}
    return {"map50": float(table[:, 0].mean()), "map": float(table.mean())}


def _precisions(
    found: Sequence[Detections], boxes: NDArray[Any], classes: NDArray[Any], label: int
) -> list[float]:
    """The average precision of one class at each overlap."""
    scores: list[float] = []
    hits: list[NDArray[Any]] = []
    total = 0
    for picture, detections in enumerate(found):
        truth = boxes[picture][classes[picture] == label]
        total += len(truth)
        mine = detections.classes == label
        ranked = np.argsort(-detections.scores[mine], kind="stable")
        scores += detections.scores[mine][ranked].tolist()
        hits += _matches(detections.boxes[mine][ranked], truth)
    order = np.argsort(-np.array(scores), kind="stable")
    table = np.array(hits, bool).reshape(len(scores), len(OVERLAPS))[order]
    return [_area(table[:, column], total) for column in range(len(OVERLAPS))]


def _matches(boxes: NDArray[Any], truth: NDArray[Any]) -> list[NDArray[Any]]:
    """For each box, best first, whether it finds a box of the truth that none before it found."""
    overlap = iou(boxes, truth)
    taken = np.zeros((len(OVERLAPS), len(truth)), bool)
    hits = []
    for row in overlap:
        hit = np.zeros(len(OVERLAPS), bool)
        for place, least in enumerate(OVERLAPS):
            free = np.where(taken[place], -1.0, row)
            if len(free) and free.max() >= least:
                taken[place, int(free.argmax())] = hit[place] = True
        hits.append(hit)
    return hits


def _area(hits: NDArray[Any], total: int) -> float:
    if not len(hits):
        return 0.0
    right = np.cumsum(hits)
    recall = right / total
    precision = right / np.arange(1, len(hits) + 1)
    # The best precision at this recall or a greater one.
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    place = np.searchsorted(recall, _RECALLS, side="left")
    return float(np.where(place < len(hits), envelope[np.minimum(place, len(hits) - 1)], 0).mean())


def iou(left: NDArray[Any], right: NDArray[Any]) -> NDArray[Any]:
    """Intersection over union of each pair: boxes [n, 4] and [m, 4] to [n, m]."""
    low = np.maximum(left[:, None, :2], right[None, :, :2])
    high = np.minimum(left[:, None, 2:], right[None, :, 2:])
    common = np.clip(high - low, 0, None).prod(axis=2)
    areas = [np.clip(side[:, 2:] - side[:, :2], 0, None).prod(axis=1) for side in (left, right)]
    union = areas[0][:, None] + areas[1][None, :] - common
    shared: NDArray[Any] = np.divide(common, union, out=np.zeros_like(common), where=union > 0)
    return shared
