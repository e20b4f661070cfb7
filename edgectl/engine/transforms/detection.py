"""Raw boxes of a detector to detections in the original picture.

Forms of boxes and rows that models have in common are declared; overlapping boxes are thinned by
greedy non-maximum suppression (NMS).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgectl.engine.errors import EngineError
from edgectl.engine.transforms import parameters
from edgectl.engine.transforms.scores import Sigmoid, Softmax

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from edgectl.engine.transforms.geometry import Geometry

_BEYOND_BOX = {"scores": 1, "objectness": 2, "class": 2}
"""Fewest numbers of a row beside its four coordinates."""


@dataclass(frozen=True, slots=True, eq=False)
class Detections:
    """What was found in one picture, best first."""

    boxes: NDArray[Any]
    """FP32 [n, 4]: x1, y1, x2, y2 in pixels, of the original picture where it was sent encoded, of
    the input where the tensor was sent."""
    scores: NDArray[Any]
    """FP32 [n]."""
    classes: NDArray[Any]
    """INT64 [n]."""
    labels: tuple[str, ...] = ()
    """Label of each class, or empty."""

    def label(self, number: int) -> str:
        """The label of one detection, its class index where there is none."""
        index = int(self.classes[number])
        return self.labels[index] if 0 <= index < len(self.labels) else str(index)


@dataclass(frozen=True, slots=True)
class Nms:
    """Rows of boxes and scores, [batch, rows, numbers], to detections.

    A row is a box and what `columns` says follows it: `scores` of each class, `objectness` and
    scores that it multiplies, or one score and the index of its `class`. Where a model gives boxes
    and scores apart, `scores` names the output of the scores, [batch, rows, classes], whose own
    transforms come first, and `classes` that of the class indices, if the scores are
    [batch, rows]. Rows are the second axis, or, with `transposed`, the last.

    A box is kept if its score is at least `threshold` and no better one of its class (with
    `agnostic`: of any) overlaps it by an intersection over union above `iou`; at 1, all are.
    """

    scores: str = ""
    classes: str = ""
    form: str = "xyxy"
    units: str = "pixels"
    columns: str = "scores"
    transposed: bool = False
    activation: str = "none"
    """Of the scores in the rows: what is still to be done to them."""
    background: Any = None
    """The class that stands for nothing."""
    threshold: float = 0.25
    iou: float = 0.45
    limit: int = 100
    agnostic: bool = False
    multilabel: bool = False
    """Whether a row may be found as several classes, not only its best."""
    candidates: int = 1000
    """Most boxes, the best, that are compared with each other."""

    def __post_init__(self) -> None:
        for name in ("scores", "classes"):
            if not isinstance(getattr(self, name), str):
                raise ValueError(f"parameter {name!r} must be the name of another output")  # noqa: TRY004
        if self.classes and not self.scores:
            raise ValueError("parameter 'classes' needs 'scores', the output of the scores")
        parameters.choice("form", self.form, tuple(_CORNERS))
        parameters.choice("units", self.units, ("pixels", "normalized"))
        parameters.choice("columns", self.columns, tuple(_BEYOND_BOX))
        parameters.choice("activation", self.activation, ("none", "sigmoid", "softmax"))
        if self.scores and (self.columns, self.activation) != ("scores", "none"):
            raise ValueError(
                "parameters 'columns' and 'activation' are for scores in the rows; those of"
                f" {self.scores!r} have their own transforms"
            )
        if self.columns == "class" and self.activation != "none":
            raise ValueError("parameter 'activation' is for a score of each class")
        if self.background is not None:
            parameters.whole("background", self.background, least=0)
        parameters.fraction("threshold", self.threshold)
        parameters.fraction("iou", self.iou)
        parameters.whole("limit", self.limit, most=10_000)
        parameters.whole("candidates", self.candidates, most=100_000)
        for name in ("transposed", "agnostic", "multilabel"):
            parameters.flag(name, getattr(self, name))

    @property
    def consumed(self) -> tuple[str, ...]:
        """The other outputs that go into the detections."""
        return tuple(name for name in (self.scores, self.classes) if name)

    def shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Boxes have no shape that is known beforehand: [-1, 4]. Raises ValueError if the output
        cannot be rows of boxes."""
        if len(shape) not in (2, 3):
            raise ValueError(f"takes boxes of shape [batch, rows, numbers], not {list(shape)}")
        numbers = shape[-2 if self.transposed else -1]
        if numbers == -1:
            return (-1, 4)
        if self.scores and numbers != 4:
            raise ValueError(
                f"takes boxes of 4 numbers where the scores are another output's, not {numbers}"
            )
        least = 4 if self.scores else 4 + _BEYOND_BOX[self.columns]
        if numbers < least or (self.columns == "class" and numbers != least):
            exactly = "" if self.columns == "class" else "at least "
            raise ValueError(f"takes rows of {exactly}{least} numbers, not {numbers}")
        return (-1, 4)

    def class_count(self, boxes: Sequence[int], scores: Sequence[int] | None) -> int:
        """How many classes there are by the shapes of the outputs; -1 where they do not say."""
        if self.columns == "class" or self.classes:
            return -1
        shape = boxes if scores is None else scores
        numbers = shape[-2 if self.transposed else -1]
        if numbers == -1 or scores is not None:
            return numbers
        return numbers - 4 - (self.columns == "objectness")

    def apply(
        self,
        rows: NDArray[Any],
        scores: NDArray[Any] | None = None,
        classes: NDArray[Any] | None = None,
        pictures: Sequence[Geometry | None] = (),
        labels: tuple[str, ...] = (),
    ) -> tuple[Detections, ...]:
        """The detections of each picture of the batch.

        `scores` and `classes` are the outputs that the declaration names. `pictures` says how each
        was prepared; boxes of one that is not known stay in the units in which they are. Raises
        EngineError if the arrays do not fit each other.
        """
        rows = self._laid_out(rows)
        apart = None if scores is None else self._scores_apart(scores, len(rows), rows.shape[1])
        indices = None if classes is None else classes.reshape(len(rows), -1)
        if indices is not None and indices.shape[1] != rows.shape[1]:
            raise EngineError(f"{indices.shape[1]} classes for {rows.shape[1]} boxes")
        found = []
        for number, row in enumerate(rows):
            picture = pictures[number] if number < len(pictures) else None
            given, given_classes = self._candidates(
                row, None if apart is None else apart[number],
                None if indices is None else indices[number],
            )  # fmt: skip
            found.append(self._detect(row[:, :4], given, given_classes, picture, labels))
        return tuple(found)

    def _laid_out(self, rows: NDArray[Any]) -> NDArray[Any]:
        """[batch, rows, numbers] of a float that is wide enough; a view where it is already."""
        import numpy as np

        rows = rows[None] if rows.ndim == 2 else rows
        rows = rows.swapaxes(1, 2) if self.transposed else rows
        return rows if rows.dtype.kind == "f" and rows.itemsize >= 4 else rows.astype(np.float32)

    def _scores_apart(self, scores: NDArray[Any], batch: int, rows: int) -> NDArray[Any]:
        """[batch, rows, classes], or [batch, rows, 1] with the classes apart as well."""
        if self.classes:
            scores = scores.reshape(batch, -1, 1)
        else:
            scores = scores[None] if scores.ndim == 2 else scores
            scores = scores.swapaxes(1, 2) if self.transposed else scores
        if scores.shape[:2] != (batch, rows):
            raise EngineError(
                f"scores of shape {list(scores.shape)} do not fit {batch} x {rows} boxes"
            )
        return scores

    def _candidates(
        self, row: NDArray[Any], scores: NDArray[Any] | None, classes: NDArray[Any] | None
    ) -> tuple[NDArray[Any], NDArray[Any] | None]:
        """Scores [rows, classes], or [rows, 1] with the class of each row."""
        if scores is not None:
            return scores, classes
        if self.columns == "class":
            return row[:, 4:5], row[:, 5]
        first = 5 if self.columns == "objectness" else 4
        activate = {"sigmoid": Sigmoid().apply, "softmax": Softmax().apply}.get(self.activation)
        given = row[:, first:] if activate is None else activate(row[:, first:])
        if self.columns == "objectness":
            sure = row[:, 4:5]
            given = given * (sure if activate is None else Sigmoid().apply(sure))
        return given, None

    def _detect(
        self,
        boxes: NDArray[Any],
        scores: NDArray[Any],
        classes: NDArray[Any] | None,
        picture: Geometry | None,
        labels: tuple[str, ...],
    ) -> Detections:
        import numpy as np

        place, best, kind = self._choose(scores, classes)
        corners = _CORNERS[self.form](boxes[place].astype(np.float64))
        if self.units == "normalized" and picture is not None:
            corners *= np.array(picture.size * 2)
        usable = np.isfinite(corners).all(axis=1)
        corners, best, kind = corners[usable], best[usable], kind[usable]
        kept = suppress(corners, None if self.agnostic else kind, self.iou, self.limit)
        corners, best, kind = corners[kept], best[kept], kind[kept]
        if picture is not None:
            corners = picture.to_original(corners)
            seen = (corners[:, 2:] > corners[:, :2]).all(axis=1)  # The others lie in padding.
            corners, best, kind = corners[seen], best[seen], kind[seen]
        return Detections(
            corners.astype(np.float32), best.astype(np.float32), kind.astype(np.int64), labels
        )

    def _choose(
        self, scores: NDArray[Any], classes: NDArray[Any] | None
    ) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
        """Row, score and class of the candidates, best first; equal ones keep their order."""
        import numpy as np

        if classes is not None:
            kind = np.where(np.isfinite(classes), classes, -1).astype(np.int64)
            allowed = kind >= 0
            allowed &= kind != (-1 if self.background is None else self.background)
            scores = np.where(allowed[:, None], scores, -1)
        elif self.background is not None and self.background < scores.shape[1]:
            scores = scores.copy()
            scores[:, self.background] = -1
        if self.multilabel:
            place, column = np.nonzero(scores >= self.threshold)
        else:
            column = scores.argmax(axis=1)
            place = np.flatnonzero(scores[np.arange(len(scores)), column] >= self.threshold)
            column = column[place]
        best = scores[place, column].astype(np.float64)
        order = np.argsort(-best, kind="stable")[: self.candidates]
        place = place[order]
        return place, best[order], column[order] if classes is None else kind[place]


def suppress(
    boxes: NDArray[Any], classes: NDArray[Any] | None, iou: float, limit: int
) -> NDArray[Any]:
    """Greedy NMS: indices of the boxes that stay, of boxes [n, 4] (corners) with the best first.

    Only boxes of the same class suppress each other; without classes, all do. Boxes without area
    overlap nothing.
    """
    import numpy as np

    areas = (boxes[:, 2:] - boxes[:, :2]).clip(0).prod(axis=1)
    left = np.arange(len(boxes))
    kept: list[int] = []
    while len(left) and len(kept) < limit:
        first, left = left[0], left[1:]
        kept.append(int(first))
        low = np.maximum(boxes[first, :2], boxes[left, :2])
        high = np.minimum(boxes[first, 2:], boxes[left, 2:])
        shared = (high - low).clip(0).prod(axis=1)
        apart = shared <= iou * (areas[first] + areas[left] - shared)
        if classes is not None:
            apart |= classes[left] != classes[first]
        left = left[apart]
    return np.array(kept, np.int64)


def _from_centres(boxes: NDArray[Any]) -> NDArray[Any]:
    import numpy as np

    half = boxes[:, 2:] / 2
    return np.concatenate([boxes[:, :2] - half, boxes[:, :2] + half], axis=1)


def _from_sizes(boxes: NDArray[Any]) -> NDArray[Any]:
    import numpy as np

    return np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)


_CORNERS = {
    "xyxy": lambda boxes: boxes,
    "yxyx": lambda boxes: boxes[:, [1, 0, 3, 2]],
    "xywh": _from_sizes,
    "cxcywh": _from_centres,
}
"""How each form of boxes becomes x1, y1, x2, y2."""
