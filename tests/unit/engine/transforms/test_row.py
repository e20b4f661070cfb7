from __future__ import annotations

import contextlib
import csv
import io
import json
import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.preprocessing import MinMaxScaler, StandardScaler

from edgectl.engine import transforms
from edgectl.engine.errors import InputError
from edgectl.engine.signature import TensorSpec
from edgectl.engine.transforms.row import Row
from edgectl.engine.transforms.scaling import MinMax, Standardize

COLOUR = {"name": "colour", "values": ["red", "green", "blue"]}
COLUMNS = ["age", COLOUR, {"name": "size", "missing": -1}]
NUMBERS = st.floats(-1e9, 1e9)


def _apply(text: str, *columns: Any, steps: int = 0) -> list[Any]:
    rows: list[Any] = Row(list(columns or COLUMNS), steps).apply(text.encode()).tolist()
    return rows


@pytest.mark.parametrize(
    "text",
    [
        '{"age": 41, "colour": "green", "size": 2.5}',
        '{"size": 2.5, "colour": "green", "age": 41, "name": "not asked for"}',
        '[41, "green", 2.5]',
        ' ["41", "green", "2.5"] ',
        "41,green,2.5",
        '41, "green", 2.5\n',
        "age,colour,size\n41,green,2.5",
        "\ufeffsize,id,colour,age\r\n2.5,17,green,41\r\n",
    ],
)
def test_a_row_is_the_same_in_every_form_that_people_send(text: str) -> None:
    assert _apply(text) == [41, 1, 2.5]


@given(
    ages=st.lists(NUMBERS, min_size=1, max_size=5),
    colours=st.lists(st.sampled_from(COLOUR["values"]), min_size=5, max_size=5),
)
def test_json_and_csv_rows_are_their_values(ages: list[float], colours: list[str]) -> None:
    rows = [[age, colour, 1.5] for age, colour in zip(ages, colours, strict=False)]
    wanted = [[age, COLOUR["values"].index(colour), 1.5] for age, colour, _ in rows]
    buffer = io.StringIO()
    csv.writer(buffer).writerows(rows)
    for text in (json.dumps(rows), buffer.getvalue()):
        assert _apply(text, steps=len(rows)) == wanted


@pytest.mark.parametrize("text", ['{"age": 1, "colour": "red"}', "1,red,", "1,red,nan",
                                  '{"age": 1, "colour": "red", "size": null}'])  # fmt: skip
def test_a_missing_value_is_what_is_declared(text: str) -> None:
    assert _apply(text) == [1, 0, -1]


def test_categories() -> None:
    onehot = {**COLOUR, "onehot": True}
    assert _apply('{"colour": "blue", "age": 3}', onehot, "age") == [0, 0, 1, 3]
    assert Row([onehot, "age"]).shape(()) == (4,)
    other = {**COLOUR, "unknown": "blue", "missing": "green"}
    assert _apply("mauve", other) == [2]
    assert _apply('{"colour": null}', other) == [1]
    typed = {"name": "flag", "values": [True, 1, "1.0"]}
    assert [_apply(f"[{text}]", typed) for text in ("true", "1", '"1.0"')] == [[0], [1], [2]]
    assert _apply("[true]", "flag") == [1]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"colour": "red", "size": 1}', "column 'age' is missing"),
        ('{"age": "old", "colour": "red"}', "column 'age': 'old' is not a number"),
        ('{"age": [1], "colour": "red"}', r"column 'age': \[1\] is not a number"),
        ('{"age": 1e999, "colour": "red"}', "column 'age' is infinite"),
        ("1_0,red,1", "'1_0' is not a number"),
        ("nan,red,1", "column 'age' is missing"),
        ('{"age": 1, "colour": "mauve"}', "'mauve' is not one of red, green, blue"),
        ('{"age": 1, "colour": {"a": 1}}', "is not one of red, green, blue"),
        ("[1, 2]", "2 values for 3 columns"),
        ("1,red", "2 values for 3 columns"),
        ("age,colour,size\n1,red", "2 values under 3 names"),
        ("age,colour,size", "there are 0 rows, but the model takes 1"),
        ("1,red,1\n2,red,1", "there are 2 rows"),
        ("", "there are 0 rows"),
        ("{", "not valid JSON"),
        ("[" * 100_000, "nested too deeply"),
        ('1,"red', "not valid CSV"),
        (f'[{"9" * 5000}, "red", 1]', "not valid JSON|not a number"),
    ],
)
def test_wrong_rows_are_refused(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        _apply(text)


def test_a_value_may_be_nested_as_deeply_as_one_likes() -> None:
    """The depth that can still be read is more than the depth that can still be shown."""
    for depth in range(sys.getrecursionlimit()):
        deep = "[" * depth + "]" * depth
        for text in (f'[[{deep}], "red", 1]', f"[1, [{deep}], 1]"):
            with pytest.raises(InputError):
                _apply(text)


def test_wrong_windows_are_refused() -> None:
    with pytest.raises(InputError, match="takes a list of 2 rows, not an object"):
        _apply("{}", steps=2)
    with pytest.raises(InputError, match="3 is not a row"):
        _apply("[3, 4]", steps=2)
    with pytest.raises(InputError, match="not UTF-8"):
        Row(["a"]).apply(b"\xff")
    with pytest.raises(InputError, match="4 bytes, more than 3"):
        Row(["a"], max_bytes=3).apply(b"1000")


@given(text=st.text(alphabet='{}[]",:0123456789.eE-+nulNaIifty\n agedcoloursizred', max_size=60))
def test_any_text_is_read_or_refused(text: str) -> None:
    with contextlib.suppress(InputError):
        assert np.isfinite(_apply(text)).all()


TABLES = hnp.arrays(
    np.float64, st.tuples(st.integers(2, 8), st.integers(1, 4)),
    elements=st.floats(-1e6, 1e6).map(lambda value: round(value, 3)),
)  # fmt: skip


@given(table=TABLES)
def test_scaling_is_scikit_learns(table: Any) -> None:
    table[:, 0] = table[0, 0]  # a constant column, which has neither spread nor range
    standard = StandardScaler().fit(table)
    made = Standardize(standard.mean_.tolist(), np.sqrt(standard.var_).tolist()).apply(table)
    np.testing.assert_allclose(made[:, 1:], standard.transform(table)[:, 1:], atol=1e-6)
    np.testing.assert_allclose(made[:, 0], 0, atol=1e-6)
    ranges = MinMaxScaler((-1, 1)).fit(table)
    declared = (ranges.data_min_.tolist(), ranges.data_max_.tolist(), -1, 1)
    np.testing.assert_allclose(MinMax(*declared).apply(table), ranges.transform(table), atol=1e-6)
    beyond = table * 3 + 7
    clipped = MinMax(*declared, clip=True).apply(beyond)
    np.testing.assert_allclose(clipped, np.clip(MinMax(*declared).apply(beyond), -1, 1), atol=1e-12)


def test_a_window_of_a_time_series_is_scaled_by_column() -> None:
    spec = TensorSpec(
        "window", "FP32", (-1, 2, 2),
        (
            {"row": {"columns": ["speed", "heat"], "steps": 2}},
            {"standardize": {"mean": [1, 10], "std": [2, 0]}},
        ),
    )  # fmt: skip
    transforms.check(spec, "input")
    made = transforms.preprocess(spec, b"speed,heat\n3,10\n5,11\n").array
    assert made.dtype == np.float32
    np.testing.assert_array_equal(made, [[[1, 0], [2, 1]]])


@pytest.mark.parametrize(
    ("declared", "message"),
    [
        ({"row": []}, "'columns' must be a list of 1 to 4096 columns"),
        ({"row": ["a", "a"]}, "'columns' has 'a' twice"),
        ({"row": [3]}, "a column is a name or a mapping with one, not 3"),
        ({"row": [{"name": "a", "value": 1}]}, "a column has no 'value'; known are name, values"),
        ({"row": [{"name": "a", "onehot": True}]}, "are for columns with 'values'"),
        ({"row": [{"name": "a", "missing": "x"}]}, "'missing' must be a number"),
        ({"row": [{"name": "a", "values": ["x"], "unknown": "y"}]}, "one of its values, not 'y'"),
        ({"row": [{"name": "a", "values": ["x", "x"]}]}, "a value is there twice"),
        ({"row": [{"name": "a", "values": "x"}]}, "'values' must be a list"),
        ({"standardize": {"mean": [1, 2], "std": [1, 2, 3]}}, "'mean' has 2 values and 'std' 3"),
        ({"standardize": {"mean": 0, "std": -1}}, "'std' must not be negative"),
        ({"minmax": {"min": [0, 5], "max": 4}}, "'min' must not be above 'max'"),
        ({"minmax": {"min": 0, "max": 1, "low": 1}}, "'low' must be below 'high'"),
    ],
)
def test_wrong_declarations(declared: Any, message: str) -> None:
    with pytest.raises(ValueError, match="transform") as caught:
        transforms.canonical(declared)
    assert message in str(caught.value)


def test_columns_that_do_not_fit_are_named() -> None:
    steps = ({"row": ["a", COLOUR]}, {"minmax": {"min": [0, 0, 0], "max": 1}})
    with pytest.raises(ValueError, match="'min' and 'max' have 3 values, but the last axis has 2"):
        transforms.check(TensorSpec("x", "FP32", (-1, 2), steps), "input")
