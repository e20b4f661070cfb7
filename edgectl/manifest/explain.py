"""What pydantic found wrong, in the manifest's own words and at its place in the file."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Any

from edgectl.manifest.base import Element
from edgectl.manifest.fields import choices, fields_of, type_at
from edgectl.manifest.problem import Problem, dotted, suggest
from edgectl.manifest.yaml import MAX_PROBLEMS, kind_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pydantic import ValidationError
    from pydantic_core import ErrorDetails

    from edgectl.manifest.yaml import Node

_WANTED = {
    "string_type": "text",
    "int_type": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "model_type": "a mapping of fields",
    "dict_type": "a mapping",
    "tuple_type": "a list",
}


def problems_of(
    error: ValidationError, kind: type[Element], node: Node, path: Path
) -> Iterator[Problem]:
    """A problem for each thing that pydantic refused, at most `MAX_PROBLEMS`."""
    details = [
        detail
        for detail in error.errors(include_url=False, include_input=False)
        if detail["type"] != "too_short" or not node.find(detail["loc"]).children
    ]  # pydantic calls a list too short also where it is its items that are wrong
    for detail in islice(details, MAX_PROBLEMS):
        yield _problem(detail, kind, node, path)
    if len(details) > MAX_PROBLEMS:
        rest = len(details) - MAX_PROBLEMS
        yield Problem(path, node.line, node.column, f"has {rest} more problems")


def _problem(detail: ErrorDetails, kind: type[Element], node: Node, path: Path) -> Problem:
    location = detail["loc"]
    is_key = bool(location) and location[-1] == "[key]"
    field = location[:-1] if is_key else location
    at = node.find(field)
    line, column = at.line, at.column
    if is_key or detail["type"] == "extra_forbidden":
        line, column = node.find(field[:-1]).keys[str(field[-1])]
    message, suggestion = _words(detail, kind, at)
    return Problem(path, line, column, message, dotted(field), suggestion)


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
            known = choices(type_at(kind, location))
            return f"{_shown(at)} is not one of the choices", suggest(at.value, known)
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
            return f"{_shown(at, detail)} has not the form it must have", _example(kind, location)
        case _:
            return detail["msg"].removeprefix("Input ").removeprefix("String "), None


def _shown(at: Node, detail: ErrorDetails | None = None) -> str:
    if detail is not None and detail["loc"][-1] == "[key]":
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
    example = info.examples[0]
    return f"for example {example}" if isinstance(example, str | int | float) else None
