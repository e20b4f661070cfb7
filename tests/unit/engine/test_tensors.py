from __future__ import annotations

from typing import Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgectl.engine.errors import InputError
from edgectl.engine.signature import DATATYPES, TensorSpec
from edgectl.engine.tensors import check, check_inputs, datatype_of, numpy_dtype, shape_matches


@pytest.mark.parametrize("datatype", DATATYPES)
def test_every_datatype_has_a_dtype_and_back(datatype: str) -> None:
    assert datatype_of(numpy_dtype(datatype)) == datatype


@pytest.mark.parametrize("dtype", ["complex64", "datetime64[s]", "V8"])
def test_refuses_dtypes_that_oip_cannot_say(dtype: str) -> None:
    with pytest.raises(InputError, match="no datatype"):
        datatype_of(np.dtype(dtype))


def test_refuses_unknown_datatypes() -> None:
    with pytest.raises(InputError, match="'FLOAT32' is not one of BOOL"):
        numpy_dtype("FLOAT32")


@given(shape=st.lists(st.integers(0, 5), max_size=4), data=st.data())
def test_a_shape_matches_itself_with_any_sizes_left_open(
    shape: list[int], data: st.DataObject
) -> None:
    declared = [data.draw(st.sampled_from([size, -1])) for size in shape]
    assert shape_matches(shape, declared)
    assert not shape_matches([*shape, 1], declared)


@given(
    shape=st.lists(st.integers(0, 4), min_size=1, max_size=3),
    datatype=st.sampled_from([name for name in DATATYPES if name != "BYTES"]),
    byte_order=st.sampled_from(["<", ">"]),
)
def test_check_keeps_values_and_makes_them_native(
    shape: list[int], datatype: str, byte_order: Literal["<", ">"]
) -> None:
    values = np.arange(np.prod(shape)).reshape(shape).astype(numpy_dtype(datatype))
    given_array = np.asfortranarray(values.astype(values.dtype.newbyteorder(byte_order)))
    checked = check(TensorSpec("x", datatype, (-1, *shape[1:])), given_array)
    np.testing.assert_array_equal(checked, values)
    assert checked.dtype.isnative
    assert checked.flags.c_contiguous
    assert checked.shape == tuple(shape)


@pytest.mark.parametrize(
    "array",
    [
        np.array(["a", "ü"]),
        np.array([b"a", "ü".encode()]),
        np.array(["a", "ü".encode()], dtype=object),
    ],
)
def test_text_reaches_the_engine_as_text(array: np.ndarray) -> None:
    checked = check(TensorSpec("t", "BYTES", (-1,)), array)
    assert checked.dtype == np.object_
    assert checked.tolist() == ["a", "ü"]


@pytest.mark.parametrize("array", [np.array([1, "a"], object), np.array([b"\xff"])])
def test_refuses_what_is_not_text(array: np.ndarray) -> None:
    with pytest.raises(InputError, match=r"input 't' holds .* not (text|UTF-8)"):
        check(TensorSpec("t", "BYTES", (-1,)), array)


def test_refuses_unequal_batches() -> None:
    specs = (TensorSpec("a", "FP32", (-1, 2)), TensorSpec("b", "FP32", (-1, 2)))
    arrays = {"a": np.zeros((2, 2), np.float32), "b": np.zeros((3, 2), np.float32)}
    with pytest.raises(InputError, match="different batch sizes: 'a' 2, 'b' 3"):
        check_inputs(specs, arrays)
