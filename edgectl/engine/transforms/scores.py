"""Raw outputs to answers: softmax, sigmoid, unit length, decisions, the best classes.

Outputs have the shape [batch, ..., classes]; every transform here works on the last axis.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgectl.engine.transforms import parameters

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, eq=False)
class Classes:
    """The best classes of each row, best first: arrays of shape [batch, ..., k]."""

    indices: NDArray[Any]
    scores: NDArray[Any]
    labels: tuple[str, ...]
    """Label of each class, or empty."""

    def to_bytes_tensor(self) -> NDArray[Any]:
        """`score:index[:label]` as a BYTES tensor, the Open Inference Protocol's way of answering
        a classification (Triton's "classification" extension)."""
        import numpy as np

        texts = np.empty(self.indices.shape, np.object_)
        for place, index in np.ndenumerate(self.indices):
            label = f":{self.labels[index]}" if self.labels else ""
            texts[place] = f"{float(self.scores[place]):.6f}:{index}{label}".encode()
        return texts

    def label(self, row: int) -> str:
        """The label of the best class of a row of [batch, k], its index where there are none."""
        index = int(self.indices[row, 0])
        return self.labels[index] if self.labels else str(index)


@dataclass(frozen=True, slots=True)
class Softmax:
    """Logits to probabilities that add up to 1."""

    def shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape stays."""
        return shape

    def apply(self, scores: NDArray[Any]) -> NDArray[Any]:
        """Softmax over the last axis, shifted so that exp cannot overflow; float stays float."""
        import numpy as np

        wide = scores.astype(np.float32) if scores.dtype != np.float64 else scores
        powers = np.exp(wide - wide.max(axis=-1, keepdims=True))
        result: NDArray[Any] = powers / powers.sum(axis=-1, keepdims=True)
        return result


@dataclass(frozen=True, slots=True)
class Sigmoid:
    """Logits to independent probabilities."""

    def shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape stays."""
        return shape

    def apply(self, scores: NDArray[Any]) -> NDArray[Any]:
        """1 / (1 + exp(-x)), written with tanh so that nothing overflows."""
        import numpy as np

        wide = scores.astype(np.float32) if scores.dtype != np.float64 else scores
        result: NDArray[Any] = (np.tanh(wide * 0.5) + 1) * 0.5
        return result


@dataclass(frozen=True, slots=True)
class TopK:
    """The k best classes with score and label; equal scores keep the order of their indices."""

    k: int

    def __post_init__(self) -> None:
        parameters.whole("k", self.k)

    def shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape after this transform; raises ValueError if there are not k classes."""
        classes = shape[-1] if shape else 1
        if classes != -1 and classes < max(self.k, 2):
            raise ValueError(f"cannot choose the best {self.k} of {classes} scores")
        return (*shape[:-1], self.k)

    def apply(self, scores: NDArray[Any], labels: tuple[str, ...] = ()) -> Classes:
        """Choose from the last axis; raises IndexError never: k is held to what there is."""
        import numpy as np

        best = np.argsort(-scores.astype(np.float64), axis=-1, kind="stable")[..., : self.k]
        return Classes(best, np.take_along_axis(scores, best, axis=-1), labels)


@dataclass(frozen=True, slots=True)
class ArgMax:
    """The best class alone, with score and label."""

    def shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape after this transform."""
        return TopK(1).shape(shape)

    def apply(self, scores: NDArray[Any], labels: tuple[str, ...] = ()) -> Classes:
        """Choose from the last axis."""
        return TopK(1).apply(scores, labels)


@dataclass(frozen=True, slots=True)
class L2Normalize:
    """Embeddings to unit length, so that their dot product is the cosine similarity."""

    epsilon: float = 1e-12

    def __post_init__(self) -> None:
        parameters.positive("epsilon", self.epsilon)

    def shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape stays."""
        return shape

    def apply(self, scores: NDArray[Any]) -> NDArray[Any]:
        """Divide by the Euclidean length of the last axis, or by `epsilon` where it is less."""
        import numpy as np

        wide = scores.astype(np.float32) if scores.dtype != np.float64 else scores
        lengths = np.linalg.norm(wide, axis=-1, keepdims=True)
        result: NDArray[Any] = wide / np.maximum(lengths, wide.dtype.type(self.epsilon))
        return result


@dataclass(frozen=True, slots=True)
class Threshold:
    """Whether each score is at least `value`.

    One score for each row, [batch] or [batch, 1], becomes a class: 1 if it is, else 0, with its
    label if there are two. Several become as many decisions, BOOL of the same shape.
    """

    value: float

    def __post_init__(self) -> None:
        parameters.number("value", self.value)

    def shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape stays."""
        return shape

    def apply(self, scores: NDArray[Any], labels: tuple[str, ...] = ()) -> Classes | NDArray[Any]:
        """Decide; labels are used only where there are two for one score."""
        import numpy as np

        reached: NDArray[Any] = scores >= self.value
        if scores.ndim > 2 or scores.size != len(scores):
            return reached
        named = labels if len(labels) == 2 else ()
        return Classes(reached.reshape(-1, 1).astype(np.int64), scores.reshape(-1, 1), named)
