"""Any JSON-like document: an answer, never a crash; and the schema says what the models say."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from jsonschema.validators import extend
from pydantic import ValidationError

from edgectl.manifest.base import API_VERSION
from edgectl.manifest.document import KINDS, Document, read_document
from edgectl.manifest.fields import fields_of
from edgectl.manifest.schema import kind_schema
from edgectl.manifest.yaml import parse_documents, read_documents

if TYPE_CHECKING:
    from edgectl.manifest.problem import Problem

ROOT = Path(__file__).parents[3]
PATH = Path("file.yaml")
BETWEEN_FIELDS = {"faults", "value_error"}
"""What a schema cannot say: rules between fields, and what a registry setting means."""

TEXT = st.text(st.characters(codec="ascii", categories=("L", "N", "P")), max_size=8)
ODD = st.sampled_from(
    [
        None, True, 0, -1, 3, 0.5, 1e300, "", "x", "512Mi", "20ms", "15W", "10%", "-5%", "1.0.0",
        [], {}, [1], {"a": 1}, {"name": "x"}, ["x"], "linux", "int8", "a" * 300, "Ärger",
    ]
)  # fmt: skip
JSON = st.recursive(ODD | TEXT, lambda inner: st.lists(inner) | st.dictionaries(TEXT, inner))


def _good() -> list[Any]:
    paths = sorted((ROOT / "tests/vectors/manifests/good").glob("model-*.yaml"))
    paths += [*sorted((ROOT / "manifests").glob("*/*.yaml")), ROOT / "manifests/edgectl.yaml"]
    return [node.value for path in paths for node in read_documents(path)[0]]


GOOD = _good()

# JSON Schema calls 1.0 an integer; the models, as YAML does, do not.
STRICT = extend(
    Draft202012Validator,
    type_checker=Draft202012Validator.TYPE_CHECKER.redefine(
        "integer", lambda _, value: type(value) is int
    ),
)
VALIDATORS = {kind: STRICT(kind_schema(kind)) for kind in KINDS}


@st.composite
def mutated(draw: st.DrawFn) -> Any:
    """A good manifest with a few values, keys or items replaced, removed or added."""
    document = copy.deepcopy(draw(st.sampled_from(GOOD)))
    for _ in range(draw(st.integers(0, 3))):
        place = document
        while True:
            below = place.values() if isinstance(place, dict) else place
            deeper = [each for each in below if isinstance(each, dict | list) and each]
            if not deeper or draw(st.booleans()):
                break
            place = draw(st.sampled_from(deeper))
        if not place:
            continue
        if isinstance(place, list):
            place[draw(st.integers(0, len(place) - 1))] = copy.deepcopy(draw(JSON))
            continue
        key = draw(st.sampled_from(sorted(place)))
        match draw(st.sampled_from(["replace", "remove", "rename", "add"])):
            case "replace":
                place[key] = copy.deepcopy(draw(JSON))
            case "remove":
                del place[key]
            case "rename":
                place[key + draw(TEXT)] = place.pop(key)
            case _:
                place[draw(TEXT)] = copy.deepcopy(draw(JSON))
    return document


def read(value: Any) -> tuple[Document | None, list[Problem]]:
    (node,), problems = parse_documents(json.dumps(value), PATH)
    assert not problems
    return read_document(PATH, node, problems), problems


@given(st.dictionaries(TEXT, JSON, min_size=1) | mutated())
@settings(max_examples=150)
def test_any_document_is_a_manifest_or_has_problems_or_is_not_ours(value: Any) -> None:
    document, problems = read(value)
    if document is not None:
        assert (document.manifest is None) <= bool(problems)
    elif not problems:
        assert value["apiVersion"] != API_VERSION
    assert all(problem.line == 1 and problem.column >= 1 for problem in problems)
    assert all(str(problem) and json.dumps(problem.to_json()) for problem in problems)


def _refused(value: Any) -> set[str]:
    """The sorts of errors that the model of the kind has with a document."""
    try:
        KINDS[value["kind"]].model_validate(value)
    except ValidationError as error:
        return {each["type"] for each in error.errors()}
    return set()


@given(mutated())
@settings(max_examples=150)
def test_schema_and_model_agree(value: Any) -> None:
    if value.get("kind") not in list(KINDS):
        return
    accepted = VALIDATORS[value["kind"]].is_valid(value)
    refused = _refused(value)
    assert accepted == (not refused) or (accepted and refused <= BETWEEN_FIELDS)


@pytest.mark.parametrize("kind", KINDS)
def test_every_field_is_explained(kind: str) -> None:
    schema = kind_schema(kind)
    elements = [schema, *schema["$defs"].values()]
    assert fields_of(KINDS[kind]).keys() == schema["properties"].keys()
    for element in elements:
        assert element["description"], element["title"]
        for name, field in element["properties"].items():
            assert field["description"].endswith((".", ")")), f"{element['title']}.{name}"
            assert field["examples"], f"{element['title']}.{name}"
            Draft202012Validator({**field, "$defs": schema["$defs"]})
