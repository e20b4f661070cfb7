"""Read a project: every manifest file below its root, checked one by one and against each other."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from edgectl.manifest.collection import ManifestSet
from edgectl.manifest.data import data_problems
from edgectl.manifest.document import Document, name_of, read_document
from edgectl.manifest.files import file_problems
from edgectl.manifest.fit import misfits
from edgectl.manifest.fleet import Fleet
from edgectl.manifest.formats import format_problems
from edgectl.manifest.model import Model
from edgectl.manifest.problem import ManifestErrors, Problem, suggest
from edgectl.manifest.profiles import profile_files
from edgectl.manifest.project import Project
from edgectl.manifest.references import names_of, reference_problems
from edgectl.manifest.target import Target
from edgectl.manifest.yaml import read_documents

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from edgectl.manifest.base import Manifest
    from edgectl.manifest.formats import SourceFormats

PROJECT_FILE = "edgectl.yaml"
_SUFFIXES = (".yaml", ".yml")
_NOT_MANIFESTS = frozenset({"builders", "templates"})
"""Directories of a project's root that hold YAML of other sorts (docs, "Repository layout")."""

_Kind = TypeVar("_Kind", bound="Manifest")


@dataclass(slots=True)
class _Reading:
    """What has been read so far."""

    documents: list[Document] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    unread: set[Path] = field(default_factory=set)
    """Files that are not YAML to their end, and directories that are not there: what they define is
    not known."""
    lost: set[str] = field(default_factory=set)
    """Names of manifests of a kind that is not known."""

    def read(self, path: Path) -> None:
        nodes, problems = read_documents(path)
        if problems:
            self.problems += problems
            self.unread.add(path)
        for node in nodes:
            before = len(self.problems)
            document = read_document(path, node, self.problems)
            if document is not None:
                self.documents.append(document)
            elif len(self.problems) > before and (name := name_of(node)) is not None:
                self.lost.add(name)

    def of(self, kind: type[_Kind]) -> Iterator[_Kind]:
        for document in self.documents:
            if isinstance(document.manifest, kind):
                yield document.manifest


def load_project(
    root: Path, formats: SourceFormats | None = None, *, data: bool = False
) -> ManifestSet:
    """Read the project whose `edgectl.yaml` is in `root`.

    `formats` are those that the project's builders read, as
    `edgectl.build.builder.source_formats` finds them; without them a model's format may be any.
    Raises ManifestErrors with every problem of every file: YAML, fields, names that nothing has,
    and files that are missing; with `data`, also data sets whose arrays are not what their model
    declares. Digests are not checked here.
    """
    project_file = root / PROJECT_FILE
    reading = _read_project_file(project_file)
    for path in _manifest_files(root, reading):
        if path != project_file:
            reading.read(path)
    shipped = {path.stem: path for path in profile_files()}
    profiles = _profiles_in_use(shipped, reading)
    reading.problems += list(_identity_problems(reading, project_file))
    everything = [*reading.documents, *profiles]
    names = names_of(everything, shipped, lost=reading.lost, unread=len(reading.unread))
    reading.problems += reference_problems(everything, names)
    reading.problems += misfits(everything, names, formats)
    for document in reading.documents:
        if isinstance(document.manifest, Model):
            reading.problems += file_problems(document, document.manifest, root)
    if data:
        reading.problems += data_problems(reading.of(Model))
    if formats is not None:
        reading.problems += format_problems(reading.documents, formats)
    if reading.problems:
        raise ManifestErrors(each for each in reading.problems if not each.of_guess)
    return ManifestSet(
        root=root,
        project=next(reading.of(Project)),
        models={model.key: model for model in reading.of(Model)},
        targets={
            manifest.name: manifest
            for document in (*profiles, *reading.documents)
            if isinstance(manifest := document.manifest, Target)
        },
        fleets={fleet.name: fleet for fleet in reading.of(Fleet)},
    )


def load_project_file(root: Path) -> ManifestSet:
    """Read `edgectl.yaml` alone: nothing else can keep a release from being rolled back.

    Raises ManifestErrors with everything wrong in it.
    """
    reading = _read_project_file(root / PROJECT_FILE)
    reading.problems += list(_identity_problems(reading, root / PROJECT_FILE))
    if reading.problems:
        raise ManifestErrors(each for each in reading.problems if not each.of_guess)
    return ManifestSet(root, next(reading.of(Project)), {}, {}, {})


def _read_project_file(path: Path) -> _Reading:
    if not path.is_file():
        raise ManifestErrors([
            Problem(path, 1, 1, "there is no such file",
                    suggestion="run edgectl where it is, or name its directory with -C")
        ])  # fmt: skip
    reading = _Reading()
    reading.read(path)
    return reading


def _manifest_files(root: Path, reading: _Reading) -> list[Path]:
    """Files below the directories that the project names, each once, in a fixed order.

    Of an invalid Project, the root is searched: its manifests' problems are wanted too.
    """
    document = next((each for each in reading.documents if each.kind == "Project"), None)
    searched = ("spec", "manifests")
    if (
        document is None
        or not isinstance(document.manifest, Project)
        or document.place.is_guess(searched)
    ):
        return list(_walk(root, root))
    files: dict[Path, None] = {}
    for number, name in enumerate(document.manifest.spec.manifests):
        directory = root / os.path.normpath(name)
        at = (*searched, number)
        if not directory.is_dir():
            reading.problems.append(document.problem(at, f"there is no directory {directory}"))
            reading.unread.add(directory)
        elif not _inside(directory, root):
            reading.problems.append(document.problem(at, "leads out of the project"))
        else:
            files |= dict.fromkeys(_walk(directory, root))
    return list(files)


def _inside(path: Path, root: Path) -> bool:
    return path.resolve().is_relative_to(root.resolve())


def _walk(directory: Path, root: Path) -> Iterable[Path]:
    for here, below, names in os.walk(directory):
        if "oci-layout" in names:  # a repository of the registry, with any number of blobs
            below.clear()
            continue
        skipped = _NOT_MANIFESTS if Path(here) == root else frozenset()
        below[:] = sorted(
            name for name in below if not name.startswith(".") and name not in skipped
        )
        for name in sorted(names):
            if name.endswith(_SUFFIXES) and not name.startswith("."):
                yield Path(here) / name


def _profiles_in_use(shipped: Mapping[str, Path], reading: _Reading) -> list[Document]:
    """The shipped profiles that a fleet names and the project does not replace."""
    own = {document.name for document in reading.documents if document.kind == "Target"}
    named = {target for fleet in reading.of(Fleet) for target in fleet.spec.targets}
    profiles = _Reading()
    for name in sorted(named & shipped.keys() - own):
        profiles.read(shipped[name])
    reading.problems += profiles.problems
    return profiles.documents


def _identity_problems(reading: _Reading, project_file: Path) -> Iterator[Problem]:
    """Two manifests of one identity, and not exactly one Project."""
    documents = reading.documents
    first: dict[tuple[str | None, ...], Document] = {}
    for document in documents:
        if document.kind == "Project":
            identity: tuple[str | None, ...] = ("Project",)
            what = "a project has one Project, and there is one already"
        else:
            identity = (document.kind, document.name)
            what = f"{document.kind} {document.name!r}"
            if document.kind == "Model":
                identity += (document.version,)
                what += f" version {document.version!r}"
            what += " is already defined"
        if None in identity:
            continue
        known = first.setdefault(identity, document)
        if known is not document:
            yield document.problem(("metadata", "name"), f"{what} at {known.place.origin}")
    is_wrong = any(problem.path == project_file for problem in reading.problems)
    if ("Project",) not in first and not is_wrong:
        yield Problem(
            project_file, 1, 1, "has no document of kind Project", suggestion=suggest(None, [])
        )
