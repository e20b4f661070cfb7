"""What the kinds' fields are, asked by path: for suggestions and for the reference."""

from __future__ import annotations

from types import NoneType
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin

from edgectl.manifest.base import Element
from edgectl.manifest.problem import closest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pydantic.fields import FieldInfo


_OTHER_NAMES = {
    "x86_64": "amd64", "x86-64": "amd64", "x64": "amd64", "aarch64": "arm64", "armv7": "arm",
    "float": "FP32", "float32": "FP32", "single": "FP32", "float16": "FP16", "half": "FP16",
    "float64": "FP64", "double": "FP64", "string": "BYTES", "str": "BYTES",
}  # fmt: skip
"""What others call a choice of ours."""


def fields_of(element: type[Element]) -> dict[str, FieldInfo]:
    """The fields of an element by the names that manifests use."""
    return {info.alias or name: info for name, info in element.model_fields.items()}


def type_at(element: type[Element], path: Sequence[str | int]) -> Any:
    """The type of the value at a path below an element; None where the path leads nowhere."""
    current: Any = element
    for part in path:
        current = _step(plain(current), part)
        if current is None:
            return None
    return plain(current)


def plain(annotation: Any) -> Any:
    """A type without its constraints and without `| None`."""
    while hasattr(annotation, "__metadata__"):
        annotation = annotation.__origin__
    arguments = [item for item in get_args(annotation) if item is not NoneType]
    if NoneType in get_args(annotation) and len(arguments) == 1:
        return plain(arguments[0])
    return annotation


def choices(annotation: Any) -> tuple[str, ...]:
    """The values of a Literal; empty for every other type."""
    return tuple(map(str, get_args(annotation))) if get_origin(annotation) is Literal else ()


def meant_choice(wrong: object, known: Sequence[str]) -> str | None:
    """The choice that somebody misspelt, or called by another name."""
    same = _OTHER_NAMES.get(str(wrong).lower())
    return same if same in known else closest(wrong, known)


def _step(current: Any, part: str | int) -> Any:
    if isinstance(current, type) and issubclass(current, Element):
        info = fields_of(current).get(str(part))
        return info.annotation if info else None
    origin, arguments = get_origin(current), get_args(current)
    if origin is tuple and arguments:
        return arguments[0]
    if origin is dict:
        return arguments[0] if part == "[key]" else arguments[1]
    return None
