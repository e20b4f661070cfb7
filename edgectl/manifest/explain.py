"""What pydantic found wrong, in the manifest's own words and at its place in the file."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING, Any

from edgectl.manifest.base import FORMS, Element
from edgectl.manifest.fields import choices, fields_of, meant_choice, type_at
from edgectl.manifest.problem import Problem, closest, suggest
from edgectl.manifest.yaml import MAX_PROBLEMS, kind_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pydantic import ValidationError
    from pydantic_core import ErrorDetails

    from edgectl.manifest.base import Fault
    from edgectl.manifest.yaml import Node, Place

_WANTED = {
    "string_type": "text",
    "int_type": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "model_type": "a mapping of fields",
    "dict_type": "a mapping",
    "tuple_type": "a list",
}


def problems_of(error: ValidationError, kind: type[Element], place: Place) -> Iterator[Problem]:
    """A problem for each thing that pydantic refused, at most `MAX_PROBLEMS`."""
    node = place.node
    found = details_of(error, node)
    unknown = (each["loc"] for each in found if each["type"] == "extra_forbidden")
    meant = {_meant(kind, location) for location in islice(unknown, MAX_PROBLEMS)}
    details = [
        detail for detail in found if not (detail["type"] == "missing" and detail["loc"] in meant)
    ]
    for detail in islice(details, MAX_PROBLEMS):
        if detail["type"] == "faults":
            for fault in detail["ctx"]["faults"]:
                yield place.problem((*detail["loc"], *fault.field), fault.message)
        else:
            yield _problem(detail, kind, place)
    if len(details) > MAX_PROBLEMS:
        yield place.problem((), f"has {len(details) - MAX_PROBLEMS} more problems")


def details_of(error: ValidationError, node: Node) -> list[ErrorDetails]:
    """What pydantic refused, but for lists that it calls too short where their items are wrong."""
    return [
        detail
        for detail in error.errors(include_url=False, include_input=False)
        if not (detail["type"] == "too_short" and node.find(detail["loc"]).children)
    ]


def _meant(kind: type[Element], unknown: tuple[Any, ...]) -> tuple[Any, ...]:
    """The field that a misspelt one must mean: it is not missing as well."""
    return (*unknown[:-1], closest(unknown[-1], fields_of(type_at(kind, unknown[:-1]))))


def faults_of(
    value: object, at: tuple[str | int, ...] = ()
) -> Iterator[tuple[tuple[str | int, ...], Fault]]:
    """What is wrong between the fields of each element of a manifest, with the element's path."""
    if isinstance(value, Element):
        for fault in value.faults():
            yield at, fault
        for name, info in type(value).model_fields.items():
            yield from faults_of(getattr(value, name), (*at, info.alias or name))
    elif isinstance(value, tuple | dict):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for key, item in items:
            yield from faults_of(item, (*at, key))


def _problem(detail: ErrorDetails, kind: type[Element], place: Place) -> Problem:
    location = detail["loc"]
    is_key = bool(location) and location[-1] == "[key]"
    field = location[:-1] if is_key else location
    message, suggestion = _words(detail, kind, place.node.find(field))
    problem = place.problem(field, message, suggestion)
    if not (is_key or detail["type"] == "extra_forbidden"):
        return problem
    line, column = place.node.find(field[:-1]).keys[str(field[-1])]
    return replace(problem, line=line, column=column)


def _words(detail: ErrorDetails, kind: type[Element], at: Node) -> tuple[str, str | None]:
    """What is wrong, and what to do instead."""
    location, context = detail["loc"], detail.get("ctx", {})
    match detail["type"]:
        case "missing":
            return "is missing", _example(kind, location)
        case "extra_forbidden":
            parent = type_at(kind, location[:-1])
            return "unknown field", suggest(str(location[-1]), fields_of(parent))
        case "literal_error":
            is_key = location[-1] == "[key]"
            typed = (*location[:-2], "[key]") if is_key else location
            wrong = location[-2] if is_key else at.value
            known = choices(type_at(kind, typed))
            meant = meant_choice(wrong, known)
            suggestion = f"did you mean {meant!r}?" if meant else suggest(wrong, known)
            return f"{_shown(at, detail)} is not one of the choices", suggestion
        case "too_short":
            return "must not be empty", _example(kind, location)
        case "value_error":
            return str(context["error"]), None
        case "string_type" if at.text is not None and at.value is not None:
            text = at.text[:80]
            return f"YAML reads {text} as {kind_of(at.value)}, not text", f"write '{text}'"
        case wanted if wanted in _WANTED:
            return f"must be {_WANTED[wanted]}, not {kind_of(at.value)}", _example(kind, location)
        case "string_pattern_mismatch":
            wanted = FORMS[context["pattern"]]
            return f"{_shown(at, detail)} must be {wanted}", _example(kind, location)
        case _:
            message = detail["msg"].removeprefix("Input ").removeprefix("String ")
            return message.replace("should ", "must ", 1), None


def _shown(at: Node, detail: ErrorDetails) -> str:
    if detail["loc"][-1] == "[key]":
        return repr(str(detail["loc"][-2])[:80])
    return repr(at.text[:80]) if at.text is not None else kind_of(at.value)


def _example(kind: type[Element], location: tuple[Any, ...]) -> str | None:
    """`for example 16Gi`, from the field's own examples where they are short."""
    parent = type_at(kind, location[:-1])
    if not (isinstance(parent, type) and issubclass(parent, Element)):
        return None
    info = fields_of(parent).get(str(location[-1]))
    if info is None or not info.examples:
        return None
    example = str(info.examples[0])
    is_short = not isinstance(info.examples[0], dict | list) and len(example) <= 40
    return f"for example {example}" if is_short else None
