from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgectl.engine.errors import InputError
from edgectl.engine.signature import TensorSpec
from edgectl.serve.protocol import (
    JSON_LIMIT,
    OutputTensor,
    RequestedOutput,
    encode_response,
    parse_request,
    raw_request,
)

_INPUT = {"name": "x", "shape": [2], "datatype": "FP32", "data": [1, 2]}


def _body(**fields: Any) -> bytes:
    return json.dumps({"inputs": [_INPUT], **fields}).encode()


def test_json_request() -> None:
    request = parse_request(
        _body(
            id="7",
            outputs=[
                {"name": "y", "parameters": {"binary_data": True}},
                {"name": "z", "parameters": {"classification": 3, "binary_data": False}},
                {"name": "w", "parameters": {"postprocess": True}},
            ],
            parameters={"timeout": 1_500_000, "priority": 1},
        ),
        None,
    )
    assert request.id == "7"
    assert request.timeout == 1.5
    assert request.outputs == (
        RequestedOutput("y", binary=True),
        RequestedOutput("z", binary=False, classification=3),
        RequestedOutput("w", binary=False, postprocess=True),
    )
    [tensor] = request.inputs
    np.testing.assert_array_equal(tensor.decode(), np.array([1, 2], np.float32))


def test_binary_request_splits_the_body_in_order() -> None:
    first, second = np.arange(3, dtype=np.int16), np.array([[0.5]], np.float64)
    inputs = [
        {"name": "a", "shape": [3], "datatype": "INT16", "parameters": {"binary_data_size": 6}},
        _INPUT,
        {"name": "b", "shape": [1, 1], "datatype": "FP64", "parameters": {"binary_data_size": 8}},
    ]
    head = _body(inputs=inputs, parameters={"binary_data_output": True})
    body = head + first.tobytes() + second.tobytes()
    request = parse_request(body, len(head))
    assert request.binary_output
    decoded = {tensor.name: tensor.decode() for tensor in request.inputs}
    np.testing.assert_array_equal(decoded["a"], first)
    np.testing.assert_array_equal(decoded["b"], second)
    assert decoded["x"].tolist() == [1, 2]


def test_outputs_take_the_form_that_the_request_asks_for_all() -> None:
    body = _body(outputs=[{"name": "y"}], parameters={"binary_data_output": True})
    assert parse_request(body, None).outputs == (RequestedOutput("y", binary=True),)


def _with(**changes: Any) -> bytes:
    return _body(inputs=[{**_INPUT, **changes}])


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "from 1"),
        (b"{", "not valid JSON"),
        (b"\xff", "not UTF-8"),
        (b"[]", "must be a JSON object"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"a":' * 100_000, "nested too deeply"),
        (b'{"inputs":[{"name":"x","shape":[1],"datatype":"FP32","data":[NaN]}]}', "NaN"),
        (b'{"inputs":[{"name":"x","shape":[1],"datatype":"FP32","data":[-Infinity]}]}', "Inf"),
        (b'{"inputs":[{"name":"x","shape":[' + b"9" * 5000 + b'],"datatype":"FP32"}]}', "JSON"),
        (b'{"inputs":[],"id":"7","inputs":[]}', "the key 'inputs' is there twice"),
        (_body(a=[{}] * 2000), "more than 1088 objects"),
        (b"{}", "'inputs' must be a list"),
        (_body(inputs=[]), "at least one"),
        (_body(inputs=[1]), "an input must be"),
        (_body(inputs=[_INPUT] * 300), "more than 256"),
        (_body(inputs=[_INPUT, _INPUT]), "'x' is there twice"),
        (_body(inputs=[{"shape": [1]}]), "no 'name'"),
        (_with(name="x" * 300), "longer than 256"),
        (_with(shape=[-1]), "shape"),
        (_with(shape=None), "shape"),
        (_with(datatype="FP4"), "datatype"),
        (_with(data=None), "needs 'data'"),
        (_with(parameters=[1]), "'parameters' of input 'x'"),
        (_with(parameters={"binary_data_size": 4}), "both"),
        (_with(data=None, parameters={"binary_data_size": 4}), "0 to the 0 bytes"),
        (_with(data=None, parameters={"binary_data_size": -1}), "0 to the 0 bytes"),
        (_with(data=None, parameters={"binary_data_size": True}), "0 to the 0 bytes"),
        (_with(parameters={"shared_memory_region": "r"}), "shared memory"),
        (_body(id=7), "'id'"),
        (_body(outputs={}), "'outputs'"),
        (_body(outputs=[{"name": "y"}] * 2), "'y' is there twice"),
        (_body(outputs=[{"name": "y", "parameters": {"classification": -1}}]), "classification"),
        (_body(outputs=[{"name": "y", "parameters": {"binary_data": 1}}]), "binary_data"),
        (_body(parameters={"timeout": "1"}), "timeout"),
        (_body(parameters={"timeout": -1}), "timeout"),
        (_body(parameters={"timeout": 1 << 64}), "timeout"),
        (_body(parameters={"timeout": 10**400}), "timeout"),
    ],
)
def test_wrong_request_is_refused(body: bytes, message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse_request(body, None)


@pytest.mark.parametrize("length", [0, -1, 10**18])
def test_wrong_header_length_is_refused(length: int) -> None:
    with pytest.raises(InputError, match="must be from 1"):
        parse_request(_body(), length)


def test_bytes_that_nobody_asked_for_are_refused() -> None:
    body = _body()
    with pytest.raises(InputError, match="4 bytes follow"):
        parse_request(body + b"1234", len(body))


def test_json_over_its_limit_is_refused() -> None:
    with pytest.raises(InputError, match="binary data"):
        parse_request(b" " * (JSON_LIMIT + 1), None)


@given(st.binary(max_size=300), st.none() | st.integers(-2, 400))
def test_random_bytes_are_refused(body: bytes, length: int | None) -> None:
    with pytest.raises(InputError):
        parse_request(body, length)


_json = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 300) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
_tensors = st.fixed_dictionaries(
    {},
    optional={
        "name": st.sampled_from(["x", "y"]) | _json,
        "shape": st.lists(st.integers(-1, 3), max_size=3) | _json,
        "datatype": st.sampled_from(["FP32", "BYTES", "BOOL", "UINT8"]) | _json,
        "data": st.lists(_json, max_size=4) | _json,
        "parameters": st.fixed_dictionaries(
            {}, optional={"binary_data_size": st.integers(-1, 20) | _json}
        )
        | _json,
    },
)


@given(
    st.fixed_dictionaries(
        {"inputs": st.lists(_tensors, max_size=3) | _json},
        optional={"outputs": st.lists(_tensors) | _json, "parameters": _json, "id": _json},
    ),
    st.binary(max_size=24),
)
def test_almost_requests_are_read_or_refused(value: Any, binary: bytes) -> None:
    head = json.dumps(value).encode()
    try:
        for tensor in parse_request(head + binary, len(head)).inputs:
            assert tensor.decode().shape == tensor.shape
    except InputError:
        return


def test_response_puts_binary_tensors_behind_the_json() -> None:
    outputs = [
        OutputTensor("a", np.array([[1, 2]], np.int64), binary=True),
        OutputTensor("b", np.array([0.5], np.float16), binary=False),
        OutputTensor("c", np.array([b"hi"], object), binary=True),
    ]
    body, length = encode_response("m", "1.0.0", outputs, "42")
    assert length is not None
    value = json.loads(body[:length])
    assert value == {
        "model_name": "m",
        "model_version": "1.0.0",
        "id": "42",
        "outputs": [
            {
                "name": "a",
                "datatype": "INT64",
                "shape": [1, 2],
                "parameters": {"binary_data_size": 16},
            },
            {"name": "b", "datatype": "FP16", "shape": [1], "data": [0.5]},
            {
                "name": "c",
                "datatype": "BYTES",
                "shape": [1],
                "parameters": {"binary_data_size": 6},
            },
        ],
    }
    assert body[length:] == np.array([1, 2], "<i8").tobytes() + b"\x02\0\0\0hi"


def test_response_without_binary_tensors_is_json_alone() -> None:
    body, length = encode_response("m", "1", [OutputTensor("a", np.zeros(1), False)], None)
    assert length is None
    assert json.loads(body)["outputs"][0]["data"] == [0.0]
    assert "id" not in json.loads(body)


IMAGE = TensorSpec("image", "FP32", (-1, 2), ({"decode": {"mode": "L"}},))


def test_raw_tensor_takes_its_shape_from_its_size() -> None:
    request = raw_request([IMAGE], np.arange(6, dtype=np.float32).tobytes(), encoded=False)
    assert request.inputs[0].decode().tolist() == [[0, 1], [2, 3], [4, 5]]
    assert request.binary_output


def test_raw_image_is_one_element() -> None:
    [tensor] = raw_request([IMAGE], b"\x89PNG", encoded=True).inputs
    assert (tensor.datatype, tensor.shape) == ("BYTES", (1,))
    assert tensor.decode().tolist() == [b"\x89PNG"]


@pytest.mark.parametrize("size", [0, 7, 9])
def test_raw_tensor_of_another_size_is_refused(size: int) -> None:
    with pytest.raises(InputError, match="send the shape"):
        raw_request([IMAGE], b"\0" * size, encoded=False)


def test_raw_request_needs_a_single_input_and_one_open_dimension() -> None:
    with pytest.raises(InputError, match="2 inputs"):
        raw_request([IMAGE, IMAGE], b"\0" * 8, encoded=False)
    with pytest.raises(InputError, match="send the shape"):
        raw_request([TensorSpec("x", "FP32", (-1, -1))], b"\0" * 8, encoded=False)
