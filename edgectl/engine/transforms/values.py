"""An input's numbers and their form: scale, normalize, invert, layout, dtype, reshape."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgectl.engine.errors import InputError
from edgectl.engine.signature import DATATYPES
from edgectl.engine.transforms import parameters

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Scale:
    """value * factor, as float32: `factor: 0.00392156862745098` maps 0..255 to 0..1."""

    factor: float

    def __post_init__(self) -> None:
        parameters.number("factor", self.factor)

    def shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape stays."""
        return shape

    def apply(self, values: NDArray[Any]) -> NDArray[Any]:
        """Scale an array of any shape."""
        import numpy as np

        return values.astype(np.float32) * np.float32(self.factor)


@dataclass(frozen=True, slots=True)
class Normalize:
    """(value - mean) / std, as float32; one number or one per channel (the last axis)."""

    mean: Any
    std: Any

    def __post_init__(self) -> None:
        mean = parameters.per_channel("mean", self.mean)
        std = parameters.per_channel("std", self.std)
        if len(mean) != len(std) and 1 not in (len(mean), len(std)):
            raise ValueError(f"parameter 'mean' has {len(mean)} values and 'std' {len(std)}")
        if 0 in std:
            raise ValueError("parameter 'std' must not be 0")

    def shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape stays; raises ValueError if the number of channels is another."""
        given = max(
            len(parameters.per_channel("mean", self.mean)),
            len(parameters.per_channel("std", self.std)),
        )
        if given > 1 and shape[-1] not in (-1, given):
            raise ValueError(
                f"parameters 'mean' and 'std' have {given} values, but the last axis has "
                f"{shape[-1]}"
            )
        return shape

    def apply(self, values: NDArray[Any]) -> NDArray[Any]:
        """Normalise an array with channels last."""
        import numpy as np

        mean = np.asarray(parameters.per_channel("mean", self.mean), np.float32)
        std = np.asarray(parameters.per_channel("std", self.std), np.float32)
        return (values.astype(np.float32) - mean) / std


@dataclass(frozen=True, slots=True)
class Invert:
    """max - value: dark ink on white paper to bright on black. The dtype stays."""

    max: float = 255

    def __post_init__(self) -> None:
        parameters.number("max", self.max)

    def shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape stays."""
        return shape

    def apply(self, values: NDArray[Any]) -> NDArray[Any]:
        """Invert an array of any shape."""
        import numpy as np

        return (np.float32(self.max) - values.astype(np.float32)).astype(values.dtype)


@dataclass(frozen=True, slots=True)
class Layout:
    """[height, width, channels] to what the model takes: `NCHW` moves the channels to the front,
    `NHWC` says that they stay. The batch dimension is added at the end of the pipeline."""

    order: str

    def __post_init__(self) -> None:
        parameters.choice("order", self.order, ("NCHW", "NHWC"))

    def shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape after this transform."""
        if len(shape) != 3:
            raise ValueError("works on a picture, and so must come before reshape")
        return (shape[2], shape[0], shape[1]) if self.order == "NCHW" else shape

    def apply(self, values: NDArray[Any]) -> NDArray[Any]:
        """Reorder the axes."""
        return values.transpose(2, 0, 1) if self.order == "NCHW" else values


@dataclass(frozen=True, slots=True)
class Dtype:
    """Convert to an OIP datatype; for whole numbers values are rounded and held in range."""

    type: str

    def __post_init__(self) -> None:
        numeric = [name for name in DATATYPES if name not in ("BOOL", "BYTES")]
        parameters.choice("type", self.type, numeric)

    def shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape stays."""
        return shape

    def apply(self, values: NDArray[Any]) -> NDArray[Any]:
        """Convert an array of any shape."""
        import numpy as np

        from edgectl.engine.tensors import numpy_dtype

        dtype = numpy_dtype(self.type)
        if dtype.kind == "f" or dtype == values.dtype:
            return values.astype(dtype)
        limits = np.iinfo(dtype)
        if values.dtype.kind in "iu":
            own = np.iinfo(values.dtype)
            low, high = max(limits.min, own.min), min(limits.max, own.max)
            held: NDArray[Any] = np.clip(values, low, high)
            return held.astype(dtype)
        whole = np.rint(values.astype(np.float64))
        # As floats the greatest whole numbers of 64 bits would be rounded up, beyond the type.
        over, under = whole >= limits.max, whole <= limits.min
        inside = np.where(over | under, 0, whole).astype(dtype)
        return np.where(over, limits.max, np.where(under, limits.min, inside)).astype(dtype)


@dataclass(frozen=True, slots=True)
class Reshape:
    """To another shape of as many values, without the batch dimension: `to: [64]`."""

    to: Any

    def __post_init__(self) -> None:
        if not isinstance(self.to, list | tuple):
            raise ValueError(  # noqa: TRY004 - every parameter error is a ValueError
                f"parameter 'to' must be a list of sizes, not {self.to!r}"
            )
        for size in self.to:
            parameters.whole("to", size)

    def shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape after this transform; raises ValueError if the number of values differs."""
        if -1 not in shape and math.prod(shape) != math.prod(self.to):
            raise ValueError(f"cannot reshape {list(shape)} to {list(self.to)}")
        return tuple(self.to)

    def apply(self, values: NDArray[Any]) -> NDArray[Any]:
        """Reshape an array; raises InputError if the number of values differs."""
        if values.size != math.prod(self.to):
            raise InputError(f"cannot reshape {list(values.shape)} to {list(self.to)}")
        return values.reshape(tuple(self.to))
