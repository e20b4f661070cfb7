"""How far an autoencoder's output is from its input."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgectl.engine.errors import EngineError
from edgectl.engine.transforms import parameters

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class ReconstructionError:
    """The mean squared (`mse`) or absolute (`mae`) difference of each row, [batch], between this
    output and `input`, as the model was given it; the model's only input if none is named."""

    of: str = "mse"
    input: str = ""

    def __post_init__(self) -> None:
        parameters.choice("of", self.of, ("mse", "mae"))
        if not isinstance(self.input, str):
            raise ValueError("parameter 'input' must be the name of an input")  # noqa: TRY004

    def shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """One number for each row."""
        if not shape:
            raise ValueError("needs an output of shape [batch, ...]")
        return shape[:1]

    def apply(self, output: NDArray[Any], given: NDArray[Any]) -> NDArray[Any]:
        """FP32 [batch]; raises EngineError if the output does not have the input's shape."""
        import numpy as np

        if output.shape != given.shape:
            raise EngineError(
                f"an output of shape {list(output.shape)} cannot be compared with an input of"
                f" shape {list(given.shape)}"
            )
        difference = output.astype(np.float64) - given
        axes = tuple(range(1, difference.ndim))
        distances = np.abs(difference) if self.of == "mae" else difference**2
        errors: NDArray[Any] = distances.mean(axis=axes).astype(np.float32)
        return errors
