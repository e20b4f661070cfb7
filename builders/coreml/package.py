"""Model packages on disk: reading one that came from outside, and writing one.

A package is a directory with a Manifest.json that names items below Data: the specification (a
protobuf) and the directory of its weights. Core ML also has single .mlmodel files, which are the
specification alone.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from coremltools.proto import Model_pb2
from google.protobuf.message import DecodeError

from edgectl.build.kit.archive import check_tree, is_inside
from edgectl.build.protocol import RefusalError

if TYPE_CHECKING:
    from pathlib import Path

MAX_BYTES = 16 << 30
"""A package: more than any phone loads."""
MAX_SPECIFICATION_BYTES = (2 << 30) - 1
"""Protobuf's own limit for one message."""
MAX_MANIFEST_BYTES = 1 << 20
MAX_FILES = 1000

_MANIFEST = "Manifest.json"
_AUTHOR = "com.apple.CoreML"
_SPECIFICATION = f"{_AUTHOR}/model.mlmodel"
_WEIGHTS = f"{_AUTHOR}/weights"


@dataclass(frozen=True, slots=True)
class Package:
    """A specification, and the files beside it that it may refer to."""

    specification: Any
    """coremltools.proto.Model_pb2.Model"""
    data: bytes
    """The specification as it was read, which is also how it is written."""
    weights: dict[str, Path] = field(default_factory=dict)
    """Files of weights by their paths relative to the specification, `weights/weight.bin`."""


def read(path: Path) -> Package:
    """A package directory or an .mlmodel file, bounded and confined; nothing in it is run.

    Refuses what is neither (`does-not-load`), what leads outside (`directory-escapes`,
    `package-escapes`) and what is too large.
    """
    if not path.is_dir():
        return Package(*_parse(path))
    files = check_tree(path, max_files=MAX_FILES, max_bytes=MAX_BYTES)
    if "coremldata.bin" in files:
        raise _not_core_ml(
            path,
            "is a compiled model (.mlmodelc), which is made for one version of the system",
            "give the .mlpackage or .mlmodel that it was compiled from",
        )
    if _MANIFEST not in files:
        raise _not_core_ml(path, f"has no {_MANIFEST}: it is no model package")
    root = _root_item(files[_MANIFEST])
    name = f"Data/{root}"
    if name not in files:
        raise _not_core_ml(path, f"has no {name}, which its {_MANIFEST} names")
    beside = name.rsplit("/", 1)[0] + "/"
    weights = {
        file.removeprefix(beside): place
        for file, place in files.items()
        if file.startswith(beside) and file != name
    }
    return Package(*_parse(files[name]), weights)


def _parse(path: Path) -> tuple[Any, bytes]:
    if path.stat().st_size > MAX_SPECIFICATION_BYTES:
        raise RefusalError(
            "too-large",
            f"{path.name} is larger than {MAX_SPECIFICATION_BYTES} bytes",
            hint="save the model as an .mlpackage, which keeps weights apart",
        )
    data = path.read_bytes()
    specification = Model_pb2.Model()
    try:
        # Protobuf bounds the depth of nesting (100) itself, and sizes by those of the data.
        specification.ParseFromString(data)
    except (DecodeError, RecursionError, ValueError) as error:
        raise _not_core_ml(path, "is no Core ML specification, or is cut short") from error
    if specification.WhichOneof("Type") is None:
        raise _not_core_ml(path, "is no Core ML specification: it holds no model")
    return specification, data


def _root_item(manifest: Path) -> str:
    """The path below Data of the item that is the model."""
    if manifest.stat().st_size > MAX_MANIFEST_BYTES:
        raise _not_core_ml(manifest, f"is larger than {MAX_MANIFEST_BYTES} bytes")
    try:
        value = json.loads(manifest.read_bytes())
        paths = {key: str(item["path"]) for key, item in value["itemInfoEntries"].items()}
        root = paths[value["rootModelIdentifier"]]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise _not_core_ml(manifest, "is no manifest of a model package") from error
    for path in paths.values():
        if not is_inside(path):
            raise RefusalError(
                "package-escapes",
                f"{_MANIFEST} names {path!r}, which is outside the package",
                hint="do not use this package: no tool makes such a one",
            )
    return root


def _not_core_ml(path: Path, why: str, hint: str = "") -> RefusalError:
    return RefusalError(
        "does-not-load",
        f"{path.name} {why}",
        hint=hint or "copy the whole .mlpackage directory, or save the model again",
    )


def write(package: Package, target: Path) -> None:
    """Write a package directory; the same content gives the same bytes.

    Core ML's own writer names items by chance. Here their identifiers follow from their content.
    """
    data = target / "Data"
    specification = data / _SPECIFICATION
    specification.parent.mkdir(parents=True)
    specification.write_bytes(package.data)
    content = hashlib.sha256(package.data)
    root = _identifier(content)
    entries = {root: _item("Specification", "model.mlmodel", _SPECIFICATION)}
    for name, source in sorted(package.weights.items()):
        copy = specification.parent / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, copy)
        with copy.open("rb") as file:
            content.update(hashlib.file_digest(file, "sha256").digest())
    if package.weights:
        entries[_identifier(content)] = _item("Weights", "weights", _WEIGHTS)
    manifest = {
        "fileFormatVersion": "1.0.0",
        "itemInfoEntries": entries,
        "rootModelIdentifier": root,
    }
    text = json.dumps(manifest, indent=4, sort_keys=True)
    (target / _MANIFEST).write_text(text + "\n", encoding="utf-8")


def _identifier(content: Any) -> str:
    return str(uuid.UUID(bytes=content.digest()[:16], version=5))


def _item(what: str, name: str, path: str) -> dict[str, str]:
    return {
        "author": _AUTHOR,
        "description": f"CoreML Model {what}",
        "name": name,
        "path": path,
    }


def remove(target: Path) -> None:
    """Delete a package that `write` made."""
    shutil.rmtree(target)
