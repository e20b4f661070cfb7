"""The formats that a model's source can have: whatever the builders on the search path say.

Manifests know none by themselves: a builder in the user's repository adds its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgectl.manifest.model import Model
from edgectl.manifest.problem import suggest

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from edgectl.manifest.document import Document
    from edgectl.manifest.problem import Problem


@dataclass(frozen=True, slots=True)
class SourceFormats:
    """What builders say of the formats that they read."""

    names: frozenset[str]
    """Every format that some builder imports or takes as it is."""
    directories: frozenset[str]
    """Those of which a source may be a directory."""
    engines: Mapping[str, frozenset[str]]
    """The engines that a model of each format can be made for."""


def format_problems(documents: Iterable[Document], formats: SourceFormats) -> Iterator[Problem]:
    """Models of a format that no builder reads, and directories of one that is a file."""
    for document in documents:
        if isinstance(document.manifest, Model):
            yield from _format_problems(document, document.manifest, formats)


def _format_problems(document: Document, model: Model, formats: SourceFormats) -> Iterator[Problem]:
    source = model.spec.source
    if source.format not in formats.names:
        yield document.problem(
            ("spec", "source", "format"),
            f"no builder reads the format {source.format!r}",
            suggest(source.format, formats.names),
        )
    elif source.path is not None and source.format not in formats.directories:
        path = model.path(source.path)
        if path.is_dir():
            yield document.problem(
                ("spec", "source", "path"),
                f"{path} is a directory, and a model of format {source.format!r} is a file",
            )
