"""One YAML document to one manifest: which kind it is, and everything that is wrong with it."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pydantic import ValidationError

from edgectl.manifest.base import API_VERSION, TOLD_ELSEWHERE, Manifest
from edgectl.manifest.explain import details_of, faults_of, problems_of
from edgectl.manifest.fleet import Fleet
from edgectl.manifest.mend import Mending
from edgectl.manifest.model import Model
from edgectl.manifest.problem import Problem, suggest
from edgectl.manifest.project import Project
from edgectl.manifest.target import Target
from edgectl.manifest.transforms import transform_faults
from edgectl.manifest.yaml import MAX_PROBLEMS, Place

if TYPE_CHECKING:
    from pathlib import Path

    from edgectl.manifest.yaml import Node

_ROUNDS = 3
"""Times that a document is mended: a misspelt mapping can hold another, whose fields are wrong."""

_NEAR = 0.95
"""How alike a misspelt `apiVersion` is to ours; `sedge.dev/v1alpha1` is not, at 0.89."""

KINDS: dict[str, type[Manifest]] = {
    "Project": Project,
    "Model": Model,
    "Target": Target,
    "Fleet": Fleet,
}


@dataclass(frozen=True, slots=True)
class Document:
    """A document of ours: what it calls itself, and what it says."""

    place: Place
    kind: str
    written: Node
    manifest: Manifest | None
    """Of an invalid document, what there is once each wrong field is put right by guess, so that
    everything else is checked in the same run; None where too much is wrong."""

    @property
    def name(self) -> str | None:
        """`metadata.name`, also of an invalid document, so that references to it still hold."""
        return name_of(self.written)

    @property
    def version(self) -> str | None:
        """`spec.version`, also of an invalid document."""
        return _text(self.written, "spec", "version")

    def problem(
        self, field: tuple[str | int, ...], message: str, suggestion: str | None = None
    ) -> Problem:
        """A problem with the value of a field of this document."""
        return self.place.problem(field, message, suggestion)


def name_of(node: Node) -> str | None:
    """`metadata.name` of a document, if that is text."""
    return _text(node, "metadata", "name")


def _text(node: Node, *path: str) -> str | None:
    value = node.value
    for part in path:
        value = value.get(part) if isinstance(value, dict) else None
    return value if isinstance(value, str) else None


def read_document(path: Path, node: Node, problems: list[Problem]) -> Document | None:
    """The document, its problems appended to `problems`; None where it is none of ours."""
    kind = _kind(path, node, problems)
    if kind is None:
        return None
    manifest: Manifest | None
    try:
        manifest = KINDS[kind].model_validate(node.value)
        place = Place(path, node)
    except ValidationError as error:
        problems.extend(problems_of(error, KINDS[kind], Place(path, node)))
        manifest, place = _mended(path, node, KINDS[kind], error, problems)
    document = Document(place, kind, node, manifest)
    if manifest is not None:
        manifest._place = place  # noqa: SLF001 - set once, where it is made
    if isinstance(manifest, Model):
        for field, message in transform_faults(manifest):
            problems.append(document.problem(field, message))
    return document


def _mended(
    path: Path,
    node: Node,
    kind: type[Manifest],
    error: ValidationError,
    problems: list[Problem],
) -> tuple[Manifest | None, Place]:
    """The manifest with guesses for what is wrong, and the problems that come to light so: in
    fields under a misspelt name, and between fields."""
    mending = Mending(kind, node)
    place = Place(path, node)
    for _ in range(_ROUNDS):
        details = details_of(error, mending.node)
        if len(details) > MAX_PROBLEMS:
            break
        mending.mend(details)
        place = Place(path, mending.node, mending.hides)
        try:
            manifest = kind.model_validate(mending.node.value, context=TOLD_ELSEWHERE)
        except ValidationError as again:
            error = again
            problems.extend(problems_of(error, kind, place))
        else:
            for at, fault in faults_of(manifest):
                if not any(mending.is_blind((*at, name)) for name in fault.depends):
                    problems.append(place.problem((*at, *fault.field), fault.message))
            return manifest, place
    return None, place


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
    near = difflib.SequenceMatcher(None, version.lower(), API_VERSION).ratio() > _NEAR
    return near or version.lower().startswith("edgectl")


def _wrong(path: Path, node: Node, field: str, known: list[str]) -> Problem:
    at = node.find((field,))
    if field not in node.children:
        message = "is missing, so this is no manifest"
        suggestion = f"add `{field}: {known[0]}`, or keep other YAML out of spec.manifests"
        return Problem(path, at.line, at.column, message, field, suggestion)
    message = f"{str(at.text)[:80]!r} is not one that this edgectl knows"
    return Problem(path, at.line, at.column, message, field, suggest(at.value, known))
