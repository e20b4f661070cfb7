"""What every kind shares: strictness, metadata, and the scalar types with their spelling.

Attribute names are snake_case, the manifest's camelCase. Values are strict: YAML's `1.0` is never
taken for a text, nor `"3"` for a number. Quantities are parsed here, once, to bytes, seconds,
watts and fractions.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    Strict,
    StringConstraints,
    ValidationInfo,
    WithJsonSchema,
    model_validator,
)
from pydantic.alias_generators import to_camel
from pydantic_core import PydanticCustomError

from edgectl.manifest.yaml import Node, Place
from edgectl.quantity import parse_bytes, parse_seconds, parse_watts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from edgectl.manifest.problem import Origin

API_VERSION = "edgectl.dev/v1alpha1"


class Fault(NamedTuple):
    """Something wrong between the fields of one element."""

    message: str
    field: tuple[str | int, ...] = ()
    """Path of the field to tell it at, from the element down."""
    depends: tuple[str, ...] = ()
    """Fields of the element that it follows from: nothing follows from one that is wrong."""


TOLD_ELSEWHERE = object()
"""The context of a validation that lets faults pass: whoever asks for it tells them."""


class Element(BaseModel):
    """A mapping of a manifest: unknown keys refused, values strict, unchangeable once read."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        strict=True,
        allow_inf_nan=False,
        validate_default=True,
        alias_generator=to_camel,
    )

    def faults(self) -> Iterator[Fault]:
        """What is wrong between fields that are right each by itself."""
        yield from ()

    @model_validator(mode="after")
    def _without_faults(self, info: ValidationInfo) -> Self:
        faults = tuple(self.faults())
        if faults and info.context is TOLD_ELSEWHERE:
            return self
        if faults:
            text = "; ".join(fault.message for fault in faults)
            raise PydanticCustomError("faults", "{text}", {"text": text, "faults": faults})
        return self


FORMS: dict[str, str] = {}
"""What each pattern of a text asks for, in words."""


def form(pattern: str, words: str, *, max_length: int | None = None) -> StringConstraints:
    """A pattern that a text must match, explained where it does not."""
    FORMS[pattern] = words
    return StringConstraints(pattern=pattern, max_length=max_length)


def _quantity(parse: Callable[[str], float], what: str) -> BeforeValidator:
    def read(value: object) -> float:
        if not isinstance(value, str):
            raise ValueError(f"must be {what}")  # noqa: TRY004 - pydantic collects ValueErrors
        return parse(value)

    return BeforeValidator(read)


def _fraction(value: object) -> object:
    if not isinstance(value, str):
        return value
    match = _PERCENT.fullmatch(value.strip())
    if match is None:
        raise ValueError(f"{value[:40]!r} is not a share: write for example 10% or 0.1")
    return float(match[1]) / 100


_NUMBER = r"[0-9]+(\.[0-9]+)?"
_PERCENT = re.compile(rf"({_NUMBER})%")

Bytes = Annotated[
    int,
    _quantity(parse_bytes, "a size with its unit, for example 512Mi"),
    WithJsonSchema(
        {
            "type": "string",
            "title": "size",
            "pattern": rf"^\s*{_NUMBER}\s*(B|k|K|M|G|T|Ki|Mi|Gi|Ti)?\s*$",
            "examples": ["512Mi", "16Gi"],
        }
    ),
]
"""Bytes, from `512Mi` (binary) or `2G` (decimal)."""

Seconds = Annotated[
    float,
    _quantity(parse_seconds, "a duration with its unit, for example 20ms or 30m"),
    WithJsonSchema(
        {
            "type": "string",
            "title": "duration",
            "pattern": rf"^\s*({_NUMBER}\s*(us|ms|s|m|h|d)|({_NUMBER}(us|ms|s|m|h|d))+)\s*$",
            "examples": ["20ms", "30m", "1h30m"],
        }
    ),
]
"""Seconds, from `20ms`, `30m`, `1h30m`."""

Watts = Annotated[
    float,
    _quantity(parse_watts, "a power with its unit, for example 15W"),
    WithJsonSchema(
        {
            "type": "string",
            "title": "power",
            "pattern": rf"^\s*{_NUMBER}\s*(W|mW)\s*$",
            "examples": ["15W", "500mW"],
        }
    ),
]
"""Watts, from `15W` or `500mW`."""

Fraction = Annotated[
    float,
    BeforeValidator(_fraction),
    Field(ge=0, le=1),
    WithJsonSchema(
        {
            "title": "share",
            "anyOf": [
                {"type": "number", "minimum": 0, "maximum": 1},
                {"type": "string", "pattern": r"^\s*(100(\.0+)?|[0-9]{1,2}(\.[0-9]+)?)%\s*$"},
            ],
            "examples": ["10%", 0.1],
        }
    ),
]
"""0 to 1, from `10%` or `0.1`."""

Name = Annotated[
    str,
    form(
        r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$",
        "at most 63 lower-case letters, digits and, inside, hyphens",
    ),
]
"""Lower-case letters, digits and inner hyphens, at most 63: a path component of a repository."""

LabelKey = Annotated[
    str,
    form(
        r"^([a-z0-9.-]{1,253}/)?[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?$",
        "at most 63 letters, digits and, inside, any of '-_.', after an optional 'domain/'",
    ),
]
LabelValue = Annotated[
    str,
    form(
        r"^([A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?)?$",
        "at most 63 letters, digits and, inside, any of '-_.'",
    ),
]

KnownKeys = Field(json_schema_extra={"additionalProperties": False})
"""For mappings whose keys have a pattern: their JSON Schema refuses all other keys."""

Labels = Annotated[dict[LabelKey, LabelValue], KnownKeys]

Text = Annotated[str, StringConstraints(min_length=1)]
Sha256 = Annotated[str, form(r"^[0-9a-f]{64}$", "64 lower-case hexadecimal digits")]
RelativePath = Annotated[
    str,
    form(r"^[^/\x00][^\x00]*$", "a path relative to the file of this manifest", max_length=4096),
]
"""A path relative to the directory of the manifest's file, inside the project."""

Lax = Strict(strict=False)
"""For tuples alone: YAML has lists, and what is inside stays strict."""


def written(text: str) -> Any:
    """A default spelled as a manifest spells it, and read like any other value."""
    return text


class Metadata(Element):
    """What a manifest is called, and what else is known of it."""

    name: Name = Field(
        description="Unique among the manifests of its kind (a Model's: with its version).",
        examples=["digits"],
    )
    labels: Labels = Field(
        default_factory=dict,
        description="Key and value pairs to select by.",
        examples=[{"site": "berlin"}],
    )
    annotations: Annotated[dict[LabelKey, str], KnownKeys] = Field(
        default_factory=dict,
        description="Key and value pairs that edgectl does not read.",
        examples=[{"owner": "vision team"}],
    )


class Manifest(Element):
    """One document: the kinds add `kind` and `spec`."""

    api_version: Literal["edgectl.dev/v1alpha1"] = Field(
        description="The version of this API.", examples=[API_VERSION]
    )
    kind: str = Field(description="The kind.")
    metadata: Metadata = Field(
        description="Name, labels and annotations.", examples=[{"name": "digits"}]
    )

    _place: Place = PrivateAttr(default_factory=lambda: Place(Path("<memory>"), Node(1, 1, None)))

    @property
    def name(self) -> str:
        """`metadata.name`."""
        return self.metadata.name

    @property
    def origin(self) -> Origin:
        """The file and line where the manifest begins."""
        return self._place.origin

    @property
    def place(self) -> Place:
        """Where the manifest is written, to tell a problem with one of its fields."""
        return self._place

    def path(self, relative: str) -> Path:
        """A path that the manifest names, which is relative to the manifest's own file."""
        return Path(os.path.normpath(self._place.path.parent / relative))
