from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from edgectl.engine import transforms
from edgectl.engine.signature import TensorSpec
from edgectl.engine.transforms.geometry import Geometry
from edgectl.engine.transforms.image import Crop, Resize
from tests.unit.engine.transforms.pictures import encode

SIDE = st.integers(1, 2000)
FITS = st.sampled_from(["stretch", "contain", "cover"])


@given(
    width=SIDE, height=SIDE, to=st.tuples(st.integers(1, 900), st.integers(1, 900)), fit=FITS,
    shares=st.lists(st.floats(0, 1), min_size=4, max_size=4),
)  # fmt: skip
def test_boxes_come_back_to_where_they_were(
    width: int, height: int, to: tuple[int, int], fit: str, shares: list[float]
) -> None:
    geometry = Resize(*to, fit).move(Geometry.of(width, height))
    assert geometry.size == to
    across, down = sorted(shares[:2]), sorted(shares[2:])
    box = np.array(
        [[across[0] * width, down[0] * height, across[1] * width, down[1] * height]], np.float64
    )
    back = geometry.to_original(geometry.to_prepared(box))
    np.testing.assert_allclose(back, box, atol=1e-6)


def _find(picture: Any) -> list[float]:
    """The rectangle of what is brighter than half."""
    down, across = np.nonzero(picture > 127)
    return [across.min(), down.min(), across.max() + 1, down.max() + 1]


@given(
    sizes=st.tuples(*[st.integers(120, 400)] * 2),
    fit=FITS,
    to=st.tuples(st.integers(100, 300), st.integers(100, 300)),
    crop=st.booleans(),
    orientation=st.sampled_from([1, 3, 6, 8]),
)
def test_a_rectangle_seen_in_the_prepared_picture_is_where_it_is_in_the_original(
    sizes: tuple[int, int], fit: str, to: tuple[int, int], crop: bool, orientation: int
) -> None:
    """Pixels themselves, through Pillow, are the reference for what geometry says."""
    height, width = sizes
    upright = np.zeros((height, width), np.uint8)
    box = [width * 0.4, height * 0.42, width * 0.6, height * 0.56]
    left, top, right, bottom = (round(value) for value in box)
    upright[top:bottom, left:right] = 255
    stored = np.rot90(upright, {1: 0, 3: 2, 6: 1, 8: 3}[orientation])
    exif = (b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0"
            + bytes([orientation]) + b"\0\0\0\0\0\0\0")  # fmt: skip
    steps: list[Any] = [
        {"decode": "L"}, {"resize": {"width": to[0], "height": to[1], "fit": fit, "filter": "area"}}
    ]  # fmt: skip
    if crop:
        steps.append({"crop": {"width": to[0] - 7, "height": to[1] - 12}})
    spec = TensorSpec("x", "UINT8", (-1, -1, -1, 1), tuple(steps))
    prepared = transforms.preprocess(spec, encode(np.ascontiguousarray(stored), exif=exif))
    geometry = prepared.geometry
    assert geometry is not None
    assert geometry.original == (width, height)
    seen = np.array([_find(prepared.array[0, :, :, 0])], np.float64)
    rows, columns = prepared.array.shape[1:3]
    start_x, start_y, end_x, end_y = geometry.to_original(np.array([[0.0, 0.0, columns, rows]]))[0]
    kept = (max(left, start_x), max(top, start_y), min(right, end_x), min(bottom, end_y))
    off = max(geometry.scale) + 0.5
    np.testing.assert_allclose(geometry.to_original(seen)[0], kept, atol=off)


@given(width=SIDE, height=SIDE, side=st.integers(1, 600))
def test_shorter_is_torchvisions_resize(width: int, height: int, side: int) -> None:
    """torchvision.transforms.functional.resize with one size, and its documented formula."""
    short, long = sorted((width, height))
    if side * long // short > 20_000:
        return
    wanted = (side, int(side * long / short))
    size = Resize(side, side, "shorter").move(Geometry.of(width, height)).size
    assert size == (wanted if width <= height else wanted[::-1])


def test_shorter_then_crop_keeps_the_middle() -> None:
    geometry = Resize(256, 256, "shorter").move(Geometry.of(512, 1024))
    geometry = Crop(224, 224).move(geometry)
    corners = geometry.to_original(np.array([[0.0, 0.0, 224.0, 224.0]]))
    np.testing.assert_allclose(corners, [[32, 288, 480, 736]])


def test_boxes_are_held_within_the_original() -> None:
    geometry = Resize(100, 100, "contain").move(Geometry.of(200, 100))
    boxes = geometry.to_original(np.array([[-5.0, 0.0, 120.0, 100.0]]))
    np.testing.assert_allclose(boxes, [[0, 0, 200, 100]])
