"""Slots: what a device has unpacked to run, and which one it runs.

    <state>/slots/<hex>/slot.json             what the slot holds
    <state>/slots/<hex>/models/<name>/        one model directory each
    <state>/current, <state>/previous         symlinks to slots/<hex>
    <state>/compiled/<manifest hex>/          what an engine compiled here of a model

The agent writes slots and switches the links; the server reads them. A slot is named by what runs
in it (`slot_digest`), not by the release that asked for it, so that two releases of the same
models are one slot. Nothing here imports numpy or an engine.
"""

from __future__ import annotations

import errno
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from edgectl.digest import Digest, canonical_json
from edgectl.errors import IntegrityError
from edgectl.oci.filesystem import (
    is_plain_name,
    storage_error,
    storage_errors,
    sync_directory,
    write_atomic,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

Link = Literal["current", "previous"]
LINKS: tuple[Link, ...] = ("current", "previous")

_SLOT_FILE = "slot.json"
_SLOT_LIMIT = 1 << 20


@dataclass(frozen=True, slots=True)
class SlotModel:
    """One model variant in a slot, with the digests that it was verified against."""

    name: str
    version: str
    index: Digest
    """Digest of the OCI index that the release names."""
    manifest: Digest
    """Digest of the manifest that was selected from it for this device."""
    target: str
    engine: str
    precision: str

    def to_json(self) -> dict[str, str]:
        """The object in `slot.json`."""
        return {
            "name": self.name,
            "version": self.version,
            "index": str(self.index),
            "manifest": str(self.manifest),
            "target": self.target,
            "engine": self.engine,
            "precision": self.precision,
        }


@dataclass(frozen=True, slots=True)
class Slot:
    """The content of `slot.json`: the models, and the release that first brought them here."""

    fleet: str
    generation: int
    ring: str
    models: tuple[SlotModel, ...]

    @property
    def digest(self) -> Digest:
        """The slot's name (see `slot_digest`)."""
        return slot_digest(self.models)

    def to_bytes(self) -> bytes:
        """The canonical bytes of `slot.json`."""
        return canonical_json(
            {
                "schemaVersion": 1,
                "fleet": self.fleet,
                "generation": self.generation,
                "ring": self.ring,
                "models": [model.to_json() for model in self.models],
            }
        )

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Parse `slot.json`; raises ValueError if it is malformed or names a model twice."""
        try:
            value = json.loads(data)
            if value["schemaVersion"] != 1:
                raise ValueError(f"schemaVersion {value['schemaVersion']!r} is not 1")
            slot = cls(
                str(value["fleet"]),
                int(value["generation"]),
                str(value["ring"]),
                tuple(_model(model) for model in value["models"]),
            )
        except (KeyError, TypeError, AttributeError, RecursionError) as error:
            raise ValueError(f"malformed slot: {error!r}") from error
        names = [model.name for model in slot.models]
        if len(set(names)) != len(names):
            raise ValueError("malformed slot: a model is named twice")
        return slot


def slot_digest(models: Iterable[SlotModel]) -> Digest:
    """Digest of what runs: name, version and manifest of each model, whatever their order."""
    identities = [
        {"name": model.name, "version": model.version, "manifest": str(model.manifest)}
        for model in sorted(models, key=lambda model: model.name)
    ]
    return Digest.of(canonical_json({"models": identities}))


def slot_path(state: Path, digest: Digest) -> Path:
    """The directory of a slot, whether it exists or not."""
    return state / "slots" / digest.hex


def model_path(state: Path, digest: Digest, model: str) -> Path:
    """The directory of one model in a slot, whether it exists or not."""
    return slot_path(state, digest) / "models" / model


def compiled_path(state: Path, manifest: Digest) -> Path:
    """Where what an engine compiles here of a model is kept, whether it exists or not.

    It lies outside the slots: it was made here and not verified against any digest, and two slots
    with the same model share it.
    """
    return state / "compiled" / manifest.hex


def compiled_cache(state: Path, manifest: Digest) -> Path | None:
    """What an engine compiled here of a model; None if nothing was."""
    path = compiled_path(state, manifest)
    return path if path.is_dir() else None


def write_slot(directory: Path, slot: Slot) -> None:
    """Write `slot.json` into a slot directory: complete and on disk, or not at all.

    Raises StorageFullError and StorageError.
    """
    path = directory / _SLOT_FILE
    with storage_errors(f"writing {path}"):
        write_atomic(path, slot.to_bytes())


def read_slot(directory: Path) -> Slot:
    """Read the `slot.json` of a slot directory.

    Raises StorageError if it cannot be read and IntegrityError if it is not a slot.
    """
    path = directory / _SLOT_FILE
    with storage_errors(f"reading {path}"), path.open("rb") as file:
        data = file.read(_SLOT_LIMIT + 1)
    if len(data) > _SLOT_LIMIT:
        raise IntegrityError(f"{path} is larger than {_SLOT_LIMIT} bytes", hint=_REBUILD)
    try:
        return Slot.from_bytes(data)
    except ValueError as error:
        raise IntegrityError(f"{path}: {error}", hint=_REBUILD) from error


def read_link(state: Path, link: Link) -> Digest | None:
    """The slot that `current` or `previous` points to; None if there is no such link.

    Raises IntegrityError if the link points anywhere but at a slot, StorageError if it cannot be
    read.
    """
    path = state / link
    try:
        target = Path(path.readlink())
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno == errno.EINVAL:
            raise IntegrityError(f"{path} is not a symlink", hint=_REBUILD) from error
        raise storage_error(error, f"reading {path}") from error
    try:
        if target.parent != Path("slots"):
            raise ValueError("not in slots/")
        return Digest(target.name)
    except ValueError as error:
        raise IntegrityError(f"{path} points to {target}: {error}", hint=_REBUILD) from error


def switch_link(state: Path, link: Link, digest: Digest) -> None:
    """Point `current` or `previous` to a slot by an atomic rename, then fsync the directory.

    Raises StorageFullError and StorageError; the link is then the old or the new one, never gone.
    """
    path = state / link
    temporary = state / f".{link}.new"
    with storage_errors(f"switching {path}"):
        temporary.unlink(missing_ok=True)
        temporary.symlink_to(Path("slots") / digest.hex)
        temporary.rename(path)
        sync_directory(state)


_REBUILD = "let the agent stage the slot again: edgectl agent once"


def _model(value: dict[str, Any]) -> SlotModel:
    name = str(value["name"])
    if not is_plain_name(name):
        raise ValueError(f"malformed slot: {name!r} is not a model name")
    return SlotModel(
        name,
        str(value["version"]),
        Digest.parse(value["index"]),
        Digest.parse(value["manifest"]),
        str(value["target"]),
        str(value["engine"]),
        str(value["precision"]),
    )
