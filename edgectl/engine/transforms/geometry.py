"""Where a prepared picture lies in the original, so that boxes can be put back. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from numpy.typing import NDArray

Box = tuple[float, float, float, float]
"""left, top, right, bottom in pixels; pixel i reaches from i to i + 1."""


@dataclass(frozen=True, slots=True)
class Geometry:
    """The map from a prepared picture to the original one.

    `x_original = offset + x * scale` on each axis. The original is the picture as a viewer shows
    it: turned upright where `decode` does that.
    """

    original: tuple[int, int]
    """Width and height in pixels."""
    size: tuple[int, int]
    """Width and height of the prepared picture."""
    scale: tuple[float, float] = (1.0, 1.0)
    """Original pixels for each prepared one, across and down."""
    offset: tuple[float, float] = (0.0, 0.0)
    """Where the prepared picture's top left corner lies in the original; negative in padding."""

    @classmethod
    def of(cls, width: int, height: int) -> Self:
        """A picture that is still the original."""
        return cls((width, height), (width, height))

    def moved(self, size: tuple[int, int], box: Box) -> Self:
        """After a step that makes a picture of `size` (width, height) from what lies in `box`,
        which is in pixels of the picture as it is now and may reach beyond it (padding)."""
        left, top, right, bottom = box
        across, down = self.scale
        return replace(
            self,
            size=size,
            scale=(across * (right - left) / size[0], down * (bottom - top) / size[1]),
            offset=(self.offset[0] + left * across, self.offset[1] + top * down),
        )

    def to_original(self, boxes: NDArray[Any]) -> NDArray[Any]:
        """Boxes [n, 4] (x1, y1, x2, y2) of the prepared picture, in the original and held within
        it."""
        import numpy as np

        moved = boxes * np.array(self.scale * 2) + np.array(self.offset * 2)
        held: NDArray[Any] = np.clip(moved, 0, np.array(self.original * 2))
        return held

    def to_prepared(self, boxes: NDArray[Any]) -> NDArray[Any]:
        """Boxes [n, 4] of the original, in the prepared picture; they may reach beyond it."""
        import numpy as np

        moved: NDArray[Any] = (boxes - np.array(self.offset * 2)) / np.array(self.scale * 2)
        return moved
