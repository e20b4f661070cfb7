from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgectl.engine.signature import DATATYPES, ModelSignature, TensorSpec
from tests.support.models import HALVES_OUTPUT, PICTURE_INPUT

TENSORS = st.builds(
    TensorSpec,
    st.text(),
    st.sampled_from(DATATYPES),
    st.lists(st.integers(-1, 1 << 40), max_size=5).map(tuple),
    st.lists(st.dictionaries(st.text(), st.floats(allow_nan=False) | st.text(), max_size=2)).map(
        tuple
    ),
    st.lists(st.text(), max_size=3).map(tuple),
)
SIGNATURES = st.builds(
    ModelSignature,
    st.text(),
    st.text(),
    st.text(),
    st.lists(TENSORS, max_size=2).map(tuple),
    st.lists(TENSORS, max_size=2).map(tuple),
    st.fixed_dictionaries({"name": st.just("onnxruntime"), "providers": st.lists(st.text())}),
    st.dictionaries(st.sampled_from(["absolute", "relative", "top1"]), st.floats(0, 1)),
)
VALID = ModelSignature("m", "1.0.0", "classification", (PICTURE_INPUT,), (HALVES_OUTPUT,)).to_json()


@given(signature=SIGNATURES)
def test_survives_its_own_json(signature: ModelSignature) -> None:
    assert ModelSignature.from_json(json.dumps(signature.to_json())) == signature


@pytest.mark.parametrize("field", list(VALID))
@pytest.mark.parametrize("value", [None, 7, "text", [7], [None], float("inf")])
def test_wrong_fields_raise_valueerror_or_are_taken_as_text(field: str, value: Any) -> None:
    data = json.dumps({**VALID, field: value})
    try:
        read = ModelSignature.from_json(data)
    except ValueError:
        return
    assert field in {"name", "version", "task"}
    assert isinstance(getattr(read, field), str)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("datatype", "FLOAT"),
        ("shape", [1e400]),
        ("shape", None),
        ("transforms", [7]),
        ("labels", 1),
    ],
)
def test_wrong_tensors_raise_valueerror(field: str, value: Any) -> None:
    tensor = {**VALID["inputs"][0], field: value}
    with pytest.raises(ValueError, match=r"malformed|datatype"):
        ModelSignature.from_json(json.dumps({**VALID, "inputs": [tensor]}))


@pytest.mark.parametrize("data", [b"", b"{}", b"[]", b"null", b"\xff", b"[" * 100_000])
def test_what_is_no_signature_raises_valueerror(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        ModelSignature.from_json(data)
