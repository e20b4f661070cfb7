"""Encoded images to pixel arrays: decode, resize, crop.

Between `decode` and `layout` a picture is an array of shape [height, width, channels]. Pillow does
the work, and is imported only when a picture is.
"""

from __future__ import annotations

import importlib
import math
import struct
import warnings
import zlib
from dataclasses import dataclass
from functools import cache
from io import BytesIO
from typing import TYPE_CHECKING, Any

from edgectl.engine.errors import InputError
from edgectl.engine.transforms import parameters

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from PIL.Image import Image

    from edgectl.engine.transforms.geometry import Box, Geometry

_PLUGINS = {
    "PNG": "PIL.PngImagePlugin",
    "JPEG": "PIL.JpegImagePlugin",
    "BMP": "PIL.BmpImagePlugin",
    "WEBP": "PIL.WebPImagePlugin",
}
_CHANNELS = {"L": 1, "RGB": 3, "BGR": 3}
_FILTERS = {
    "bilinear": "BILINEAR",
    "nearest": "NEAREST",
    "area": "BOX",
    "bicubic": "BICUBIC",
    "lanczos": "LANCZOS",
}
"""What the filters are called in Pillow."""
_PILLOW_WARNS_ABOVE = 89_478_485
_EXIF_ORIENTATION = 0x0112

# What Pillow raises on hostile bytes, found by fuzzing and in its decoders' sources.
_DECODE_ERRORS = (
    OSError, SyntaxError, ValueError, TypeError, KeyError, IndexError, AttributeError, EOFError,
    OverflowError, ZeroDivisionError, RuntimeError, MemoryError, struct.error, zlib.error,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Decode:
    """Encoded PNG, JPEG, BMP or WebP bytes to uint8 [height, width, channels].

    Transparent pixels show `background`, as a viewer would; greyscale of 16 bits is scaled to 8.
    Only the first frame of an animation is read. The declared size is checked against `max_pixels`
    before anything is decompressed.
    """

    mode: str = "RGB"
    orient: bool = True
    """Turn the picture upright as its EXIF orientation says."""
    background: Any = 0
    max_pixels: int = 1 << 25
    max_bytes: int = 1 << 25

    def __post_init__(self) -> None:
        parameters.choice("mode", self.mode, tuple(_CHANNELS))
        parameters.flag("orient", self.orient)
        values = parameters.per_channel("background", self.background)
        if len(values) not in (1, 3) or not all(v in range(256) for v in values):
            raise ValueError("parameter 'background' must be one or three numbers from 0 to 255")
        parameters.whole("maxPixels", self.max_pixels, most=_PILLOW_WARNS_ABOVE)
        parameters.whole("maxBytes", self.max_bytes)

    def shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape after this transform, -1 where it depends on the picture."""
        return (-1, -1, _CHANNELS[self.mode])

    def apply(self, encoded: bytes) -> NDArray[Any]:
        """Decode; raises InputError for bytes that are no such picture, truncated or too large."""
        import numpy as np

        if len(encoded) > self.max_bytes:
            raise InputError(f"the image has {len(encoded)} bytes, more than {self.max_bytes}")
        kind = _sniff(encoded)
        if kind == "WEBP":  # Its decoder allocates the canvas as it opens.
            self._check_size(*_webp_size(encoded))
        _prepare(kind)
        try:
            pixels = np.asarray(self._open(encoded, kind))
        except _DECODE_ERRORS as error:
            raise InputError(f"the {kind} image cannot be decoded: {error}") from error
        if self.mode == "BGR":
            return np.ascontiguousarray(pixels[:, :, ::-1])
        return pixels.reshape(*pixels.shape[:2], _CHANNELS[self.mode])

    def _open(self, encoded: bytes, kind: str) -> Image:
        from PIL import Image

        try:
            image = Image.open(BytesIO(encoded), formats=(kind,))
        except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
            raise InputError(f"the image is too large: {error}") from error
        with image:
            self._check_size(*image.size)
            image.load()
            upright = _upright(image) if self.orient else image
            return self._convert(upright)

    def _check_size(self, width: int, height: int) -> None:
        if width * height > self.max_pixels:
            raise InputError(
                f"the image has {width} x {height} pixels, more than {self.max_pixels} in all"
            )

    def _convert(self, image: Image) -> Image:
        import numpy as np
        from PIL import Image

        if image.mode.startswith("I"):  # Pillow would clip 16 bits at 255 instead of scaling.
            wide = np.asarray(image).astype(np.uint32)
            image = Image.fromarray(((wide * 255 + 32767) // 65535).astype(np.uint8))
        elif image.has_transparency_data:
            values = [int(v) for v in parameters.per_channel("background", self.background)]
            colour = (*(values * 3)[:3], 255)
            canvas = Image.new("RGBA", image.size, colour)
            canvas.alpha_composite(image.convert("RGBA"))
            image = canvas
        return image.convert("L" if self.mode == "L" else "RGB")


def pixel_count(encoded: bytes) -> int:
    """How many pixels a picture declares to have, without decoding it; raises InputError."""
    from PIL import Image

    kind = _sniff(encoded)
    if kind == "WEBP":
        return math.prod(_webp_size(encoded))
    _prepare(kind)
    try:
        with Image.open(BytesIO(encoded), formats=(kind,)) as image:
            return math.prod(image.size)
    except (Image.DecompressionBombError, *_DECODE_ERRORS) as error:
        raise InputError(f"the {kind} image cannot be decoded: {error}") from error


@cache
def _prepare(kind: str) -> None:
    """Import one decoder, not all forty, and keep Pillow's warnings about damaged metadata, whose
    texts a hostile client chooses, out of the log."""
    importlib.import_module(_PLUGINS[kind])
    warnings.filterwarnings("ignore", module=r"PIL\.")


def _sniff(encoded: bytes) -> str:
    if encoded.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if encoded.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if encoded.startswith(b"BM"):
        return "BMP"
    if encoded.startswith(b"RIFF") and encoded[8:12] == b"WEBP":
        return "WEBP"
    raise InputError("the data is not a PNG, JPEG, BMP or WebP image")


def _webp_size(encoded: bytes) -> tuple[int, int]:
    """Canvas size from the first chunk (RFC 9649, section 2)."""
    chunk, body = encoded[12:16], encoded[20:30]
    if len(body) < 10:
        raise InputError("the WEBP image is truncated")
    if chunk == b"VP8X":
        return (
            int.from_bytes(body[4:7], "little") + 1,
            int.from_bytes(body[7:10], "little") + 1,
        )
    if chunk == b"VP8L":
        bits = int.from_bytes(body[1:5], "little")
        return (bits & 0x3FFF) + 1, ((bits >> 14) & 0x3FFF) + 1
    if chunk == b"VP8 ":
        width, height = struct.unpack("<HH", body[6:10])
        return width & 0x3FFF, height & 0x3FFF
    raise InputError("the WEBP image has no picture in its first chunk")


def _upright(image: Image) -> Image:
    from PIL.Image import Transpose

    turns = {
        2: Transpose.FLIP_LEFT_RIGHT,
        3: Transpose.ROTATE_180,
        4: Transpose.FLIP_TOP_BOTTOM,
        5: Transpose.TRANSPOSE,
        6: Transpose.ROTATE_270,
        7: Transpose.TRANSVERSE,
        8: Transpose.ROTATE_90,
    }
    turn = turns.get(image.getexif().get(_EXIF_ORIENTATION, 1))
    return image if turn is None else image.transpose(turn)


@dataclass(frozen=True, slots=True)
class Resize:
    """To width x height. Downscaling is antialiased as Pillow does it, but for `nearest`.

    `stretch` ignores the aspect ratio; `contain` keeps all of the picture and pads it evenly with
    `fill` (letterbox); `cover` keeps the middle and cuts off what is over. `shorter` scales until
    the shorter side fits and keeps what is over, for a `crop` to follow, as torchvision's Resize.
    """

    width: int
    height: int
    fit: str = "stretch"
    filter: str = "bilinear"
    fill: Any = 0

    def __post_init__(self) -> None:
        parameters.whole("width", self.width, most=1 << 14)
        parameters.whole("height", self.height, most=1 << 14)
        parameters.choice("fit", self.fit, ("stretch", "contain", "cover", "shorter"))
        parameters.choice("filter", self.filter, tuple(_FILTERS))
        parameters.per_channel("fill", self.fill)
        if self.fit == "shorter" and self.width != self.height:
            raise ValueError("parameters 'width' and 'height' must be equal with 'fit: shorter'")

    def shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape after this transform, -1 where it depends on the picture."""
        _require_picture(shape)
        channels, fill = shape[2], parameters.per_channel("fill", self.fill)
        if len(fill) not in (1, channels):
            raise ValueError(f"parameter 'fill' has {len(fill)} values for {channels} channels")
        if self.fit == "shorter":
            return (-1, -1, channels)
        return (self.height, self.width, channels)

    def move(self, geometry: Geometry) -> Geometry:
        """Where the resized picture lies in the original."""
        width, height = geometry.size
        if self.fit != "contain":
            return geometry.moved(*self._window(width, height))
        inner_width, inner_height = self._inner(width, height)
        left, top = (self.width - inner_width) // 2, (self.height - inner_height) // 2
        across, down = width / inner_width, height / inner_height
        box = (-left * across, -top * down, (self.width - left) * across,
               (self.height - top) * down)  # fmt: skip
        return geometry.moved((self.width, self.height), box)

    def apply(self, pixels: NDArray[Any]) -> NDArray[Any]:
        """Resize [height, width, channels]; the dtype stays. Raises InputError if `shorter` would
        make a very long picture larger than any that is decoded."""
        height, width = pixels.shape[:2]
        if self.fit == "contain":
            inner = self._resample(pixels, self._inner(width, height), (0, 0, width, height))
            return self._letterbox(inner)
        return self._resample(pixels, *self._window(width, height))

    def _window(self, width: int, height: int) -> tuple[tuple[int, int], Box]:
        """The size that is made, and what of the picture it is made from."""
        if self.fit == "stretch":
            return (self.width, self.height), (0, 0, width, height)
        scale = max(self.width / width, self.height / height)
        if self.fit == "shorter":
            size = (max(self.width, int(width * self.width / min(width, height))),
                    max(self.height, int(height * self.height / min(width, height))))  # fmt: skip
            if math.prod(size) > _PILLOW_WARNS_ABOVE:
                raise InputError(
                    f"the image of {width} x {height} pixels would become {size[0]} x {size[1]}"
                )
            return size, (0, 0, width, height)
        left = max(0.0, (width - self.width / scale) / 2)  # Rounding may make it negative.
        top = max(0.0, (height - self.height / scale) / 2)
        return (self.width, self.height), (left, top, width - left, height - top)

    def _inner(self, width: int, height: int) -> tuple[int, int]:
        """The size of the picture within its letterbox."""
        scale = min(self.width / width, self.height / height)
        return (
            min(self.width, max(1, round(width * scale))),
            min(self.height, max(1, round(height * scale))),
        )

    def _letterbox(self, inner: NDArray[Any]) -> NDArray[Any]:
        import numpy as np

        height, width, channels = inner.shape
        padded = np.empty((self.height, self.width, channels), inner.dtype)
        padded[:] = np.asarray(parameters.per_channel("fill", self.fill)).astype(inner.dtype)
        top, left = (self.height - height) // 2, (self.width - width) // 2
        padded[top : top + height, left : left + width] = inner
        return padded

    def _resample(self, pixels: NDArray[Any], size: tuple[int, int], box: Box) -> NDArray[Any]:
        import numpy as np
        from PIL import Image

        resampling = Image.Resampling[_FILTERS[self.filter]]

        def plane(values: NDArray[Any]) -> NDArray[Any]:
            return np.asarray(Image.fromarray(values).resize(size, resampling, box))

        if pixels.dtype == np.uint8 and pixels.shape[2] == _CHANNELS["RGB"]:
            return plane(pixels)
        whole = pixels.dtype == np.uint8
        channels = pixels if whole else pixels.astype(np.float32)
        planes = [plane(np.ascontiguousarray(channels[:, :, c])) for c in range(pixels.shape[2])]
        return np.stack(planes, axis=2)


@dataclass(frozen=True, slots=True)
class Crop:
    """Cut the middle width x height out; a smaller picture is refused."""

    width: int
    height: int

    def __post_init__(self) -> None:
        parameters.whole("width", self.width)
        parameters.whole("height", self.height)

    def shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape after this transform."""
        _require_picture(shape)
        if 0 < shape[0] < self.height or 0 < shape[1] < self.width:
            raise ValueError(
                f"cannot crop {self.width} x {self.height} from {shape[1]} x {shape[0]}"
            )
        return (self.height, self.width, shape[2])

    def move(self, geometry: Geometry) -> Geometry:
        """Where the middle lies in the original."""
        width, height = geometry.size
        left, top = (width - self.width) // 2, (height - self.height) // 2
        return geometry.moved(
            (self.width, self.height), (left, top, left + self.width, top + self.height)
        )

    def apply(self, pixels: NDArray[Any]) -> NDArray[Any]:
        """Crop [height, width, channels]; raises InputError if the picture is too small."""
        height, width = pixels.shape[:2]
        if height < self.height or width < self.width:
            raise InputError(
                f"the image has {width} x {height} pixels; at least {self.width} x {self.height} "
                "are needed"
            )
        top, left = (height - self.height) // 2, (width - self.width) // 2
        return pixels[top : top + self.height, left : left + self.width]


def _require_picture(shape: Sequence[int]) -> None:
    if len(shape) != 3:
        raise ValueError("works on a picture, and so must come before reshape")
