"""One YAML document to one manifest: which kind it is, and everything that is wrong with it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pydantic import ValidationError

from edgectl.manifest.base import API_VERSION, Manifest
from edgectl.manifest.explain import problems_of
from edgectl.manifest.fleet import Fleet
from edgectl.manifest.model import Model
from edgectl.manifest.problem import Origin, Problem, dotted, suggest
from edgectl.manifest.project import Project
from edgectl.manifest.target import Target
from edgectl.manifest.transforms import transform_faults

if TYPE_CHECKING:
    from pathlib import Path

    from edgectl.manifest.yaml import Node

KINDS: dict[str, type[Manifest]] = {
    "Project": Project,
    "Model": Model,
    "Target": Target,
    "Fleet": Fleet,
}


@dataclass(frozen=True, slots=True)
class Document:
    """A document of ours: what it calls itself, and the manifest if it is valid."""

    path: Path
    node: Node
    kind: str
    manifest: Manifest | None

    @property
    def name(self) -> str | None:
        """`metadata.name`, also of an invalid document, so that references to it still hold."""
        return self._text("metadata", "name")

    @property
    def version(self) -> str | None:
        """`spec.version`, also of an invalid document."""
        return self._text("spec", "version")

    def problem(
        self, field: tuple[str | int, ...], message: str, suggestion: str | None = None
    ) -> Problem:
        """A problem with the value of a field of this document."""
        node = self.node.find(field)
        return Problem(self.path, node.line, node.column, message, dotted(field), suggestion)

    def _text(self, *path: str) -> str | None:
        value = self.node.value
        for part in path:
            value = value.get(part) if isinstance(value, dict) else None
        return value if isinstance(value, str) else None


def read_document(path: Path, node: Node, problems: list[Problem]) -> Document | None:
    """The document, its problems appended to `problems`; None where it is none of ours."""
    kind = _kind(path, node, problems)
    if kind is None:
        return None
    manifest: Manifest | None = None
    try:
        manifest = KINDS[kind].model_validate(node.value)
    except ValidationError as error:
        problems.extend(problems_of(error, KINDS[kind], node, path))
        return Document(path, node, kind, None)
    manifest._origin = Origin(path, node.line)  # noqa: SLF001 - set once, where it is made
    document = Document(path, node, kind, manifest)
    if isinstance(manifest, Model):
        for field, message in transform_faults(manifest):
            problems.append(document.problem(field, message))
    return document


def _kind(path: Path, node: Node, problems: list[Problem]) -> str | None:
    """The kind, if the document is ours and of a kind we know.

    A document of another API (a Kubernetes object, say) is somebody else's and passed over; one
    that says nothing is an error, so that a forgotten line does not make a manifest vanish.
    """
    value = node.value
    if not isinstance(value, dict):
        problems.append(
            Problem(path, node.line, node.column, "a manifest must be a mapping of fields")
        )
        return None
    version, kind = value.get("apiVersion"), value.get("kind")
    if version != API_VERSION:
        if isinstance(version, str) and isinstance(kind, str) and not _meant_ours(version):
            return None
        problems.append(_wrong(path, node, "apiVersion", [API_VERSION]))
    elif not isinstance(kind, str) or kind not in KINDS:
        problems.append(_wrong(path, node, "kind", list(KINDS)))
    else:
        return kind
    return None


def _meant_ours(version: str) -> bool:
    return version.lower().startswith("edgectl")


def _wrong(path: Path, node: Node, field: str, known: list[str]) -> Problem:
    at = node.find((field,))
    if field not in node.children:
        message = "is missing, so this is no manifest"
        suggestion = f"add `{field}: {known[0]}`, or keep other YAML out of spec.manifests"
        return Problem(path, at.line, at.column, message, field, suggestion)
    message = f"{str(at.text)[:80]!r} is not one that this edgectl knows"
    return Problem(path, at.line, at.column, message, field, suggest(at.value, known))
