"""Builders: folders that hold one toolchain each, found on a search path.

A folder is `builder.yaml`, `requirements.lock`, `build.py` and the modules that it imports. They
are data, not packages: the user's repository comes first, then the copies that edgectl ships.
"""

from __future__ import annotations

import os
import re
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from edgectl.build.protocol import PROTOCOL
from edgectl.build.shipped import search_path
from edgectl.digest import Digest
from edgectl.errors import ToolchainError
from edgectl.manifest.formats import SourceFormats
from edgectl.manifest.problem import suggest
from edgectl.manifest.yaml import read_documents
from edgectl.plan.backends import engines_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

ACTIONS = ("import", "optimize", "compile", "evaluate")
_FILES = ("builder.yaml", "requirements.lock", "build.py")
_LISTS = ("actions", "formats", "engines", "takes", "directories")
_OPTIONAL = ("takes", "directories")
_KEYS = ("protocol", "name", "description", *_LISTS, "compiles", "leaves")
_FORMAT = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?")


@dataclass(frozen=True, eq=False)
class Builder:
    """One toolchain: what it can do, and a digest that changes when what it does may change."""

    name: str
    directory: Path
    actions: tuple[str, ...]
    formats: tuple[str, ...]
    """Source formats that its `import` action takes."""
    engines: tuple[str, ...]
    """Engines that its `optimize`, `compile` and `evaluate` actions work for."""
    takes: tuple[str, ...]
    """Source formats that its `optimize` action takes as they are, without ONNX in between."""
    directories: tuple[str, ...]
    """Those of `formats` and `takes` of which a source may be a directory."""
    compiles: str | None
    """The engine whose optimised variant its `compile` action starts from."""
    leaves: Mapping[str, str]
    """What it leaves to the device, for people: action to a sentence."""
    description: str

    @cached_property
    def digest(self) -> Digest:
        """Over builder.yaml, requirements.lock and every Python file; goes into each step's key.

        Taken once, when first asked for: most plans use few of the builders there are. Raises
        ToolchainError if a file or folder cannot be read.
        """
        with _readable(self.directory):
            return Digest.of_files(
                {name: Digest.of_file(self.directory / name) for name in self._files()}
            )

    @cached_property
    def lock_digest(self) -> Digest:
        """Over requirements.lock; names the environment. Raises ToolchainError."""
        with _readable(self.directory):
            return Digest.of_file(self.lock)

    def pin(self) -> None:
        """Take the digest now: what changes in the folder later is another builder. Raises
        ToolchainError."""
        _ = self.digest

    @property
    def script(self) -> Path:
        """The program that speaks the builder protocol."""
        return self.directory / "build.py"

    @property
    def lock(self) -> Path:
        """The hashed requirements of the environment."""
        return self.directory / "requirements.lock"

    def _files(self) -> set[str]:
        """What the digest is over, as relative paths; raises OSError."""
        files = set(_FILES)
        for folder, below, names in os.walk(self.directory, onerror=_raise):
            below[:] = [
                name for name in below if not name.startswith(".") and name != "__pycache__"
            ]
            relative = Path(folder).relative_to(self.directory)
            files |= {
                (relative / name).as_posix()
                for name in names
                if name.endswith(".py") and not name.startswith(".")
            }
        return files


def find_builder(name: str, *, repository: Path | None = None) -> Builder:
    """The builder of that name; raises ToolchainError if there is none, or it is malformed."""
    folders = search_path("builders", repository)
    for folder in folders:
        if (folder / name / "builder.yaml").is_file():
            return load_builder(folder / name)
    known = ", ".join(sorted({p.parent.name for f in folders for p in f.glob("*/builder.yaml")}))
    raise ToolchainError(
        f"there is no builder {name!r} in {' or '.join(str(folder) for folder in folders)}",
        hint=f"use one of: {known}" if known else "reinstall edgectl: its builders are missing",
    )


def find_builders(*, repository: Path | None = None) -> tuple[Builder, ...]:
    """Every builder on the search path; one of the repository hides ours of the same name."""
    found: dict[str, Builder] = {}
    for folder in search_path("builders", repository):
        for path in sorted(folder.glob("*/builder.yaml")):
            if path.parent.name not in found:
                found[path.parent.name] = load_builder(path.parent)
    return tuple(found.values())


def source_formats(builders: Iterable[Builder]) -> SourceFormats:
    """What manifests may say of a source's format, given these builders."""
    builders = tuple(builders)
    return SourceFormats(
        frozenset(name for each in builders for name in (*each.formats, *each.takes)),
        frozenset(name for each in builders for name in each.directories),
        engines_of(builders),
    )


def load_builder(directory: Path) -> Builder:
    """Read one builder folder; raises ToolchainError naming what is wrong with it."""
    directory = directory.absolute()
    with _readable(directory):
        missing = [name for name in _FILES if not (directory / name).is_file()]
    if missing:
        raise _unreadable(directory, f"it has no {' and no '.join(missing)}")
    spec = _read_spec(directory / "builder.yaml")
    return Builder(
        directory.name,
        directory,
        tuple(spec["actions"]),
        tuple(spec["formats"]),
        tuple(spec["engines"]),
        tuple(spec.get("takes", ())),
        tuple(spec.get("directories", ())),
        spec.get("compiles"),
        dict(spec.get("leaves", {})),
        str(spec.get("description", "")),
    )


@contextmanager
def _readable(directory: Path) -> Iterator[None]:
    """Turn the OSErrors of the block into a ToolchainError about a builder's folder."""
    try:
        yield
    except OSError as error:
        raise _unreadable(directory, str(error)) from error


def _raise(error: OSError) -> None:
    raise error


def _unreadable(directory: Path, why: str) -> ToolchainError:
    return ToolchainError(
        f"builder {directory.name!r} cannot be read: {why}",
        hint=f"a builder folder holds {', '.join(_FILES)}; see docs/builders.md",
    )


def _read_spec(path: Path) -> dict[str, Any]:
    """What a builder.yaml says; raises ToolchainError with everything wrong with its YAML."""
    documents, problems = read_documents(path)
    spec = documents[0].value if len(documents) == 1 else None
    wrong = [str(problem) for problem in problems]
    if not wrong and (problem := _problem(spec, path.parent.name)) is not None:
        wrong = [f"{path}: {problem}"]
    if wrong:
        raise ToolchainError("\n".join(wrong), hint="docs/builders.md says what a builder is")
    return cast("dict[str, Any]", spec)


def _problem(spec: Any, name: str) -> str | None:
    """What is wrong with a builder.yaml, the first thing; None if nothing is."""
    if not isinstance(spec, dict):
        return "not one document that is a mapping"
    if spec.get("protocol") != PROTOCOL:
        return f"protocol {spec.get('protocol')!r}: this edgectl speaks {PROTOCOL}"
    if spec.get("name") != name:
        return f"name {spec.get('name')!r} is not the folder's name"
    for key in spec:
        if key not in _KEYS:
            return f"unknown key {key!r} ({suggest(key, _KEYS)})"
    for key in _LISTS:
        value = spec.get(key, [] if key in _OPTIONAL else None)
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            return f"{key} is not a list of names"
    return _contradiction(spec)


def _contradiction(spec: dict[str, Any]) -> str | None:
    """Where the parts of a builder.yaml, each right by itself, do not fit together."""
    actions = set(spec["actions"])
    if unknown := sorted(actions - set(ACTIONS)):
        return f"unknown actions {', '.join(unknown)} ({suggest(unknown[0], ACTIONS)})"
    if bool(spec["formats"]) != ("import" in actions):
        return "formats are what the import action reads: both, or neither"
    if bool(spec["engines"]) != bool(actions - {"import"}):
        return "engines are what the actions other than import make variants for: both, or neither"
    sources = {*spec["formats"], *spec.get("takes", ())}
    for name in sorted(sources):
        if not _FORMAT.fullmatch(name):
            return f"format {name!r} is not of lowercase letters, digits and '-'"
    if strange := sorted(set(spec.get("directories", ())) - sources):
        return f"directories names {', '.join(strange)}, which it neither imports nor takes"
    leaves = spec.get("leaves", {})
    if not isinstance(leaves, dict) or not set(leaves) <= actions:
        return "leaves is not a mapping of some of its actions to sentences"
    compiles = spec.get("compiles")
    if not isinstance(compiles, str | None) or (compiles is None) == ("compile" in actions):
        return "compiles must name the engine that the compile action starts from, and only then"
    return None
