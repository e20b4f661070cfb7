from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edgectl.engine.errors import InputError
from edgectl.engine.signature import DATATYPES
from edgectl.engine.tensors import datatype_of, numpy_dtype
from edgectl.serve import codec

NUMERIC = [name for name in DATATYPES if name != "BYTES"]
_shapes = hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4)


def _arrays(datatype: str, *, finite: bool) -> st.SearchStrategy[Any]:
    if datatype == "BYTES":
        elements = st.text().map(str.encode) if finite else st.binary()
        return _shapes.flatmap(lambda shape: hnp.arrays(object, shape, elements=elements))
    dtype = numpy_dtype(datatype)
    if dtype.kind == "f" and finite:
        numbers = hnp.from_dtype(dtype, allow_nan=False, allow_infinity=False)
    else:
        numbers = hnp.from_dtype(dtype)
    return hnp.arrays(dtype, _shapes, elements=numbers)


_any = st.sampled_from(DATATYPES).flatmap(lambda name: _arrays(name, finite=False))
_finite = st.sampled_from(DATATYPES).flatmap(lambda name: _arrays(name, finite=True))


def _assert_same(got: Any, wanted: Any) -> None:
    assert got.dtype == wanted.dtype
    assert got.shape == wanted.shape
    if wanted.dtype == object:
        assert got.ravel().tolist() == wanted.ravel().tolist()
    else:
        assert got.tobytes() == wanted.tobytes()


@given(_any, st.integers(0, 9))
def test_binary_form_keeps_every_bit_at_any_offset(array: Any, offset: int) -> None:
    wire = memoryview(b"x" * offset + codec.to_binary(array))[offset:]
    got = codec.from_binary(wire, datatype_of(array.dtype), array.shape, "t")
    _assert_same(got, array)
    assert array.dtype == object or got.flags.aligned


@given(_finite, st.booleans())
def test_json_form_keeps_every_value_flat_or_nested(array: Any, nested: bool) -> None:
    data: Any = codec.to_json(array, "t")
    if nested and array.ndim:
        texts = array if array.dtype != object else np.array(data, object).reshape(array.shape)
        data = texts.tolist()
    data = json.loads(json.dumps(data, allow_nan=False))
    got = codec.from_json(data, datatype_of(array.dtype), array.shape, "t")
    if array.dtype.kind == "f":
        np.testing.assert_array_equal(got, array)  # JSON has no negative zero in some forms
    else:
        _assert_same(got, array)


def test_what_json_cannot_say_is_null() -> None:
    array = np.array([1.5, math.nan, math.inf, -math.inf], np.float32)
    assert codec.to_json(array, "t") == [1.5, None, None, None]


def test_output_that_is_not_text_asks_for_binary() -> None:
    with pytest.raises(InputError, match="binary_data"):
        codec.to_json(np.array([b"\xff"], object), "t")


def test_text_of_an_engine_is_bytes_on_the_wire() -> None:
    array = np.array(["ä"], object)
    assert codec.to_json(array, "t") == ["ä"]
    assert codec.to_binary(array) == b"\x02\0\0\0\xc3\xa4"


@pytest.mark.parametrize(
    ("datatype", "shape", "data", "message"),
    [
        ("FP32", [2], [1.0], "2 elements, but 1"),
        ("FP32", [2], [1.0, "2"], "numbers"),
        ("FP32", [2], [1.0, None], "numbers"),
        ("FP32", [2], [1.0, True], "numbers"),
        ("FP32", [2], [1.0, [2.0]], "numbers"),
        ("FP32", [1], [10**400], "out of range"),
        ("FP32", [2, 2], [[1, 2], [3]], "nested"),
        ("FP32", [2, 2], [[1, 2], 3], "nested"),
        ("FP32", [4], [[1, 2], [3, 4]], "nested"),
        ("FP32", [1], 1.0, "list"),
        ("FP32", [1], None, "list"),
        ("INT8", [1], [128], "out of range"),
        ("UINT8", [1], [-1], "out of range"),
        ("INT32", [1], [1.5], "integers"),
        ("INT32", [1], [True], "integers"),
        ("UINT64", [1], [2**64], "out of range"),
        ("BOOL", [1], [1], "booleans"),
        ("BYTES", [1], [1], "strings"),
        ("BYTES", [1], ["\ud800"], "surrogate"),
    ],
)
def test_wrong_json_data_is_refused(
    datatype: str, shape: list[int], data: Any, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        codec.from_json(data, datatype, shape, "t")


def test_deeply_nested_data_is_refused() -> None:
    data: Any = [1.0]
    for _ in range(900):
        data = [data]
    with pytest.raises(InputError):
        codec.from_json(data, "FP32", [1] * 32, "t")


@pytest.mark.parametrize(
    ("datatype", "shape", "data", "message"),
    [
        ("FP32", [2], b"\0" * 7, "is 8 bytes, but 7"),
        ("FP32", [2], b"\0" * 12, "is 8 bytes, but 12"),
        ("FP32", [2**40, 2**40], b"\0" * 8, "bytes"),
        ("BOOL", [1], b"\x02", "0 or 1"),
        ("BYTES", [1], b"\x05\0\0\0abc", "longer than the data"),
        ("BYTES", [1], b"\xff\xff\xff\xff", "longer than the data"),
        ("BYTES", [1], b"\0\0", "longer than the data"),
        ("BYTES", [2], b"\0\0\0\0", "2 elements declared, but 1"),
        ("BYTES", [1], b"\0\0\0\0" * 1000, "more than 1"),
    ],
)
def test_wrong_binary_data_is_refused(
    datatype: str, shape: list[int], data: bytes, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        codec.from_binary(memoryview(data), datatype, shape, "t")


@given(st.sampled_from(DATATYPES), st.lists(st.integers(0, 5), max_size=4), st.binary())
def test_binary_data_is_read_or_refused(datatype: str, shape: list[int], data: bytes) -> None:
    try:
        array = codec.from_binary(memoryview(data), datatype, shape, "t")
    except InputError:
        return
    assert array.shape == tuple(shape)
    assert codec.to_binary(array) == data


@pytest.mark.parametrize("shape", [None, "2", [1.0], [True], [-1], [2**63], [[1]], [1] * 33])
def test_wrong_shape_is_refused(shape: Any) -> None:
    with pytest.raises(InputError, match="shape"):
        codec.parse_shape(shape, "t")


@pytest.mark.parametrize("datatype", [None, 1, "fp32", "FP8", "F" * 10_000, ["FP32"]])
def test_wrong_datatype_is_refused(datatype: Any) -> None:
    with pytest.raises(InputError, match="datatype") as refused:
        codec.parse_datatype(datatype, "t")
    assert len(str(refused.value)) < 300
