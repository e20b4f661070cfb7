from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from edgectl.engine.errors import InputError
from edgectl.engine.transforms.image import Crop, Decode, Resize
from tests.unit.engine.transforms.pictures import encode, png_header, webp_header

GREY = hnp.arrays(np.uint8, hnp.array_shapes(min_dims=2, max_dims=2, max_side=20))
RGB = hnp.arrays(np.uint8, st.tuples(st.integers(1, 20), st.integers(1, 20), st.just(3)))


@given(pixels=RGB, kind=st.sampled_from(["PNG", "BMP", "WEBP"]))
def test_lossless_pictures_decode_to_their_pixels(pixels: Any, kind: str) -> None:
    options = {"lossless": True} if kind == "WEBP" else {}
    data = encode(pixels, kind, **options)
    np.testing.assert_array_equal(Decode("RGB").apply(data), pixels)
    np.testing.assert_array_equal(Decode("BGR").apply(data), pixels[:, :, ::-1])
    luma = (pixels @ np.array([0.299, 0.587, 0.114]))[:, :, None]
    np.testing.assert_allclose(Decode("L").apply(data), luma, atol=1)


@given(pixels=GREY, mode=st.sampled_from(["L", "RGB", "RGBA", "LA", "P"]))
def test_a_grey_picture_decodes_the_same_however_it_is_stored(pixels: Any, mode: str) -> None:
    data = encode(Image.fromarray(pixels).convert(mode))
    np.testing.assert_array_equal(Decode("L").apply(data)[:, :, 0], pixels)
    np.testing.assert_array_equal(Decode("RGB").apply(data), np.stack([pixels] * 3, axis=2))


@given(pixels=GREY)
def test_sixteen_bits_are_scaled_not_clipped(pixels: Any) -> None:
    data = encode(pixels.astype(np.uint16) * 257)
    np.testing.assert_array_equal(Decode("L").apply(data)[:, :, 0], pixels)


def test_one_bit_is_black_and_white() -> None:
    bits = np.eye(9, dtype=bool)
    data = encode(Image.fromarray(bits.astype(np.uint8) * 255).convert("1"))
    np.testing.assert_array_equal(Decode("L").apply(data)[:, :, 0], bits * np.uint8(255))


def test_transparent_pixels_show_the_background() -> None:
    pixels = np.array([[[9, 9, 9, 255], [200, 100, 50, 0], [255, 255, 255, 128]]], np.uint8)
    data = encode(pixels)
    black = Decode("L").apply(data)[0, :, 0]
    assert black.tolist() == [9, 0, 128]
    colour = Decode("RGB", background=[10, 20, 30]).apply(data)
    assert colour[0, 1].tolist() == [10, 20, 30]


def test_a_transparent_palette_entry_shows_the_background() -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([200, 0, 0, 0, 200, 0])
    image.putpixel((1, 0), 1)
    decoded = Decode("RGB", background=255).apply(encode(image, transparency=0))
    assert decoded[0].tolist() == [[255, 255, 255], [0, 200, 0]]


def test_jpeg_decodes_to_about_its_pixels() -> None:
    pixels = np.linspace(0, 255, 64, dtype=np.uint8).reshape(8, 8)
    for mode in ("L", "RGB", "CMYK"):
        data = encode(Image.fromarray(pixels).convert(mode), "JPEG", quality=95)
        np.testing.assert_allclose(Decode("L").apply(data)[:, :, 0], pixels, atol=4)


@pytest.mark.parametrize(
    ("orientation", "undo"),
    [
        (1, lambda a: a),
        (2, lambda a: a[:, ::-1]),
        (3, lambda a: a[::-1, ::-1]),
        (4, lambda a: a[::-1]),
        (5, lambda a: a.T),
        (6, lambda a: a.T[:, ::-1]),
        (7, lambda a: a[::-1, ::-1].T),
        (8, lambda a: a.T[::-1]),
    ],
)
def test_the_exif_orientation_is_followed(orientation: int, undo: Any) -> None:
    stored = np.arange(6, dtype=np.uint8).reshape(2, 3) * 40
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encode(stored, exif=exif)
    np.testing.assert_array_equal(Decode("L").apply(data)[:, :, 0], undo(stored))
    np.testing.assert_array_equal(Decode("L", orient=False).apply(data)[:, :, 0], stored)


def test_an_animation_gives_its_first_frame() -> None:
    frames = [Image.new("L", (4, 4), value) for value in (10, 200)]
    data = encode(frames[0], "PNG", save_all=True, append_images=frames[1:])
    assert np.unique(Decode("L").apply(data)).tolist() == [10]


@pytest.mark.parametrize("data", [b"", b"hello", b"GIF89a" + b"\0" * 20, b"%PDF-1.4", b"\x89PNG"])
def test_refuses_what_is_no_picture(data: bytes) -> None:
    with pytest.raises(InputError, match="not a PNG, JPEG, BMP or WebP image"):
        Decode().apply(data)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP", "WEBP"])
def test_refuses_a_truncated_picture(kind: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    data = encode(pixels, kind)
    for length in range(16, len(data) * 3 // 4, 23):
        with pytest.raises(InputError, match=f"the {kind} image"):
            Decode().apply(data[:length])


@settings(max_examples=300)
@given(
    kind=st.sampled_from(["PNG", "JPEG", "BMP", "WEBP"]),
    place=st.integers(2, 10_000),
    value=st.binary(min_size=1, max_size=4),
)
def test_damaged_pictures_are_refused_or_decoded_but_never_crash(
    kind: str, place: int, value: bytes
) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    pixels = np.arange(192, dtype=np.uint8).reshape(8, 8, 3)
    data = bytearray(encode(pixels, kind, **({} if kind == "BMP" else {"exif": exif})))
    place %= len(data)
    data[place : place + len(value)] = value
    try:
        with warnings.catch_warnings():  # As a server runs: pytest makes warnings errors.
            warnings.simplefilter("ignore")
            decoded = Decode("RGB", max_pixels=1 << 16).apply(bytes(data))
    except InputError:
        return
    assert decoded.dtype == np.uint8
    assert decoded.ndim == 3


@pytest.mark.parametrize(
    "data",
    [
        png_header(30_000, 30_000),
        png_header(9_000, 9_000),
        webp_header(16_000, 16_000),
        png_header((1 << 31) - 1, 1),
    ],
)
def test_refuses_a_bomb_by_its_declared_size(data: bytes) -> None:
    assert len(data) < 200
    with pytest.raises(InputError, match=r"pixels|too large"):
        Decode().apply(data)


def test_refuses_too_many_encoded_bytes() -> None:
    data = encode(np.zeros((8, 8), np.uint8))
    with pytest.raises(InputError, match=f"the image has {len(data)} bytes, more than 10"):
        Decode(max_bytes=10).apply(data)


def _triangle_resize(pixels: Any, size: int, low: float, high: float) -> Any:
    """Antialiased bilinear resampling of the first axis: a triangle as wide as the reduction."""
    scale = (high - low) / size
    support = max(scale, 1.0)
    rows = []
    for position in range(size):
        centre = low + (position + 0.5) * scale
        first = max(int(centre - support + 0.5), 0)
        last = min(int(centre + support + 0.5), len(pixels))
        weights = [max(0.0, 1 - abs((i + 0.5 - centre) / support)) for i in range(first, last)]
        total = sum(weights)
        rows.append(sum(w / total * pixels[first + i] for i, w in enumerate(weights)))
    return np.stack(rows)


@given(pixels=GREY, width=st.integers(1, 24), height=st.integers(1, 24))
def test_stretching_is_antialiased_bilinear(pixels: Any, width: int, height: int) -> None:
    down, across = pixels.shape
    columns = _triangle_resize(pixels.T.astype(float), width, 0, across)
    wanted = _triangle_resize(columns.T, height, 0, down)
    whole = Resize(width, height).apply(pixels[:, :, None])
    assert whole.dtype == np.uint8
    np.testing.assert_allclose(whole[:, :, 0], wanted, atol=1.01)
    fraction = Resize(width, height).apply(pixels[:, :, None].astype(np.float32))
    np.testing.assert_allclose(fraction[:, :, 0], wanted, atol=1e-3)


@given(pixels=RGB, times=st.integers(1, 8))
def test_enlarging_by_whole_steps_and_shrinking_by_area_gives_the_picture_back(
    pixels: Any, times: int
) -> None:
    height, width = pixels.shape[:2]
    enlarged = Resize(width * times, height * times, filter="nearest").apply(pixels)
    np.testing.assert_array_equal(enlarged, pixels.repeat(times, axis=0).repeat(times, axis=1))
    shrunk = Resize(width, height, filter="area").apply(enlarged)
    np.testing.assert_array_equal(shrunk, pixels)


@given(pixels=GREY, width=st.integers(1, 24), height=st.integers(1, 24), fill=st.integers(0, 255))
def test_letterboxing_keeps_all_of_the_picture_in_the_middle(
    pixels: Any, width: int, height: int, fill: int
) -> None:
    boxed = Resize(width, height, fit="contain", fill=fill).apply(pixels[:, :, None])
    scale = min(width / pixels.shape[1], height / pixels.shape[0])
    inner_width = max(1, round(pixels.shape[1] * scale))
    inner_height = max(1, round(pixels.shape[0] * scale))
    left, top = (width - inner_width) // 2, (height - inner_height) // 2
    inner = Resize(inner_width, inner_height).apply(pixels[:, :, None])
    wanted = np.full((height, width, 1), fill, np.uint8)
    wanted[top : top + inner_height, left : left + inner_width] = inner
    np.testing.assert_array_equal(boxed, wanted)
    assert width in (inner_width, inner_width + 2 * left, inner_width + 2 * left + 1)


@given(pixels=GREY, width=st.integers(1, 12), height=st.integers(1, 12))
@example(pixels=np.zeros((1, 7), np.uint8), width=12, height=1)
def test_covering_cuts_the_middle_out(pixels: Any, width: int, height: int) -> None:
    down, across = pixels.shape
    scale = max(width / across, height / down)
    left, top = (across - width / scale) / 2, (down - height / scale) / 2
    columns = _triangle_resize(pixels.T.astype(float), width, left, across - left)
    wanted = _triangle_resize(columns.T, height, top, down - top)
    covered = Resize(width, height, fit="cover").apply(pixels[:, :, None].astype(np.float32))
    assert covered.shape == (height, width, 1)
    np.testing.assert_allclose(covered[:, :, 0], wanted, atol=0.5)


def test_letterbox_fills_each_channel() -> None:
    pixels = np.zeros((1, 3, 3), np.uint8)
    boxed = Resize(3, 3, fit="contain", fill=[1, 2, 3]).apply(pixels)
    assert boxed[0, 0].tolist() == [1, 2, 3]
    assert boxed[1, 0].tolist() == [0, 0, 0]


@given(pixels=RGB, width=st.integers(1, 20), height=st.integers(1, 20))
def test_cropping_cuts_the_middle_out_or_refuses(pixels: Any, width: int, height: int) -> None:
    down, across = pixels.shape[:2]
    if width > across or height > down:
        with pytest.raises(InputError, match=f"{across} x {down} pixels; at least"):
            Crop(width, height).apply(pixels)
        return
    top, left = math.floor((down - height) / 2), math.floor((across - width) / 2)
    wanted = pixels[top : top + height, left : left + width]
    np.testing.assert_array_equal(Crop(width, height).apply(pixels), wanted)
