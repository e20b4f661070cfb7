from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edgectl.engine.errors import InputError
from edgectl.engine.transforms.values import Dtype, Invert, Layout, Normalize, Reshape, Scale

PICTURES = hnp.arrays(np.uint8, st.tuples(st.integers(1, 6), st.integers(1, 6), st.just(3)))


@given(pixels=PICTURES)
def test_scale_and_normalize_are_the_textbook_formulas(pixels: Any) -> None:
    scaled = Scale(1 / 255).apply(pixels)
    assert scaled.dtype == np.float32
    np.testing.assert_allclose(scaled, pixels / 255, rtol=1e-6)
    mean, std = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    normal = Normalize(mean, std).apply(scaled)
    assert normal.dtype == np.float32
    np.testing.assert_allclose(normal, (pixels / 255 - mean) / std, atol=1e-5)
    np.testing.assert_allclose(Normalize(0.5, 0.5).apply(scaled), pixels / 127.5 - 1, atol=1e-6)


@given(pixels=PICTURES)
def test_inverting_twice_changes_nothing(pixels: Any) -> None:
    np.testing.assert_array_equal(Invert().apply(pixels), 255 - pixels)
    np.testing.assert_array_equal(Invert().apply(Invert().apply(pixels)), pixels)


@given(pixels=PICTURES)
def test_layouts(pixels: Any) -> None:
    first = Layout("NCHW").apply(pixels)
    assert first.shape == Layout("NCHW").shape(pixels.shape)
    for channel in range(3):
        np.testing.assert_array_equal(first[channel], pixels[:, :, channel])
    np.testing.assert_array_equal(Layout("NHWC").apply(pixels), pixels)


def test_whole_number_types_round_and_hold_in_range() -> None:
    values = np.array([-3.2, -0.5, 0.5, 1.5, 254.6, 300], np.float32)
    assert Dtype("UINT8").apply(values).tolist() == [0, 0, 0, 2, 255, 255]
    assert Dtype("INT8").apply(values).tolist() == [-3, 0, 0, 2, 127, 127]
    assert Dtype("FP16").apply(values).dtype == np.float16


@pytest.mark.parametrize("name", ["INT8", "UINT16", "INT32", "UINT32", "INT64", "UINT64"])
@pytest.mark.parametrize("source", [np.float32, np.float64, np.int64, np.uint64])
def test_no_value_turns_round_at_the_end_of_a_type(name: str, source: Any) -> None:
    limits = np.iinfo(name.lower())
    if np.dtype(source).kind == "f":
        values = np.array([-1e30, -7, 7, 1e30], source)
    else:
        values = np.array([np.iinfo(source).min, 7, 7, np.iinfo(source).max], source)
    made = Dtype(name).apply(values).tolist()
    wanted = [min(max(int(value), limits.min), limits.max) for value in values.tolist()]
    assert made == wanted


def test_reshape() -> None:
    assert Reshape([64]).apply(np.zeros((8, 8, 1))).shape == (64,)
    with pytest.raises(InputError, match=r"cannot reshape \[8, 8, 1\] to \[60\]"):
        Reshape([60]).apply(np.zeros((8, 8, 1)))
