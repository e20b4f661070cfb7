"""Slots on disk: assembled aside, named at once, switched by a link, removed when unused.

What a slot is, and how the links are switched, is `edgectl.serve.slot`'s; this builds and prunes.
"""

from __future__ import annotations

import errno
import logging
import os
import shutil
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from edgectl.agent.blobs import remove
from edgectl.digest import Digest
from edgectl.errors import EdgectlError, IntegrityError, StorageError
from edgectl.oci.descriptor import Manifest, parse_manifest
from edgectl.oci.filesystem import is_plain_name, storage_errors, sync_directory, write_atomic
from edgectl.serve.slot import (
    LINKS,
    Slot,
    compiled_path,
    read_link,
    read_slot,
    slot_path,
    write_slot,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from edgectl.agent.blobs import BlobStore
    from edgectl.oci.descriptor import Descriptor
    from edgectl.serve.slot import Link

FILEPATH = "org.cncf.model.filepath"
_MOST_PARTS = 16
"""Of a file's path in a model."""
_COMMITTED = "committed"
"""A file in a slot that has passed its soak: what a lost database cannot take away."""
_NO_HARD_LINKS = {errno.EPERM, errno.EXDEV, errno.EMLINK, errno.ENOTSUP, errno.ENOSYS}

_log = logging.getLogger(__name__)


def model_files(manifest: Manifest) -> dict[str, Descriptor]:
    """The layers of a model by file: names, or paths below the model's directory, as a Core ML
    package and the project of a microcontroller have them.

    Raises IntegrityError unless each has a path of its own whose parts are all plain names: another
    could lead out of the slot.
    """
    files: dict[str, Descriptor] = {}
    for layer in manifest.layers:
        name = layer.annotations.get(FILEPATH, "")
        parts = name.split("/")
        if len(parts) > _MOST_PARTS or not all(map(is_plain_name, parts)):
            raise IntegrityError(
                f"layer {layer.digest} is to be unpacked to {name!r}, which is not a plain name",
                hint="the package is malformed or hostile: build it again with edgectl apply",
            )
        if name in files:
            raise IntegrityError(f"two layers are to be unpacked to {name!r}")
        files[name] = layer
    for name in files:
        if within := next((str(above) for above in _above(name) if str(above) in files), None):
            raise IntegrityError(f"layers are to be unpacked to {within!r} and to {name!r} in it")
    return files


def _above(name: str) -> Sequence[PurePosixPath]:
    """The directories of a path, without the one that all files are in."""
    return PurePosixPath(name).parents[:-1]


class SlotStore:
    """The slots below one state directory."""

    def __init__(self, state: Path, blobs: BlobStore) -> None:
        self.state = state
        self._blobs = blobs
        self._directory = state / "slots"
        self._compiled = state / "compiled"
        self.timing = self._compiled / "timing"
        """Kernels that engines measured, for the models to come."""

    def assemble(self, slot: Slot, models: Mapping[str, Mapping[str, Descriptor]]) -> None:
        """Make a slot of verified blobs, durably, unless it is there and whole.

        `models` gives each model's files. The slot gets its name when all of it is on disk. One
        that has passed its soak has so when it is made again, too: it is the same content.
        Raises StorageFullError and StorageError, leaving no part of it behind.
        """
        final = slot_path(self.state, slot.digest)
        if self._is_whole(final, slot, models):
            return
        temporary = self._directory / f".{slot.digest.hex}.new"
        with storage_errors(f"staging slot {slot.digest.short}"):
            remove(temporary)
            temporary.mkdir(parents=True)
            try:
                self._fill(temporary, slot, models)
                if self.is_committed(slot.digest):
                    write_atomic(temporary / _COMMITTED, b"")
                remove(final)
                temporary.rename(final)
            except BaseException:
                shutil.rmtree(temporary, ignore_errors=True)
                raise
            sync_directory(self._directory)

    def _fill(
        self, directory: Path, slot: Slot, models: Mapping[str, Mapping[str, Descriptor]]
    ) -> None:
        root = directory / "models"
        root.mkdir()
        for name, files in models.items():
            model = root / name
            model.mkdir()
            below = {model / above for file in files for above in _above(file)}
            for path in sorted(below):  # a directory before those in it
                path.mkdir()
            for file, descriptor in files.items():
                _link_or_copy(self._blobs.path(descriptor.digest), model / file)
            for path in below:
                sync_directory(path)
            sync_directory(model)
        sync_directory(root)
        write_slot(directory, slot)

    def _is_whole(
        self, path: Path, slot: Slot, models: Mapping[str, Mapping[str, Descriptor]]
    ) -> bool:
        try:
            if read_slot(path).digest != slot.digest:
                return False
            return all(
                self._is_blob(path / "models" / name / file, descriptor)
                for name, files in models.items()
                for file, descriptor in files.items()
            )
        except (EdgectlError, OSError):
            return False

    def _is_blob(self, path: Path, descriptor: Descriptor) -> bool:
        """Whether a file in a slot is a blob that was verified, or hashes to it."""
        return (
            path.samefile(self._blobs.path(descriptor.digest))
            or Digest.of_file(path) == descriptor.digest
        )

    def is_usable(self, digest: Digest) -> bool:
        """Whether a slot is there with all its models' directories."""
        path = slot_path(self.state, digest)
        try:
            slot = read_slot(path)
        except EdgectlError:
            return False
        whole = all((path / "models" / model.name).is_dir() for model in slot.models)
        return whole and slot.digest == digest

    def mark_committed(self, digest: Digest) -> None:
        """Note in the slot itself that it passed its soak."""
        path = slot_path(self.state, digest) / _COMMITTED
        with storage_errors(f"writing {path}"):
            write_atomic(path, b"")

    def is_committed(self, digest: Digest) -> bool:
        """Whether the slot passed its soak on this device."""
        return (slot_path(self.state, digest) / _COMMITTED).exists()

    def has_proven_itself(self, digest: Digest) -> bool:
        """Whether the slot is whole and passed its soak, so that nothing is left to do for it."""
        return self.is_usable(digest) and self.is_committed(digest) and self._has_sizes(digest)

    def _has_sizes(self, digest: Digest) -> bool:
        """Whether every file of a slot is as long as its model's manifest says.

        A model whose manifest is lost is not held against the slot, which does without.
        """
        path = slot_path(self.state, digest)
        for model in read_slot(path).models:
            try:
                files = self._files(model.manifest)
            except (StorageError, IntegrityError):
                continue
            for file, descriptor in files.items():
                if _size(path / "models" / model.name / file) != descriptor.size:
                    _log.warning("slot=%s damaged=%s/%s", digest.short, model.name, file)
                    return False
        return True

    def _files(self, digest: Digest) -> dict[str, Descriptor]:
        """The files of a model by its manifest; raises StorageError and IntegrityError."""
        manifest = parse_manifest(self._blobs.read(digest))
        return model_files(manifest) if isinstance(manifest, Manifest) else {}

    def unlink(self, link: Link) -> None:
        """Remove `current` or `previous`: there is nothing good to point to."""
        with storage_errors(f"removing {self.state / link}"):
            (self.state / link).unlink(missing_ok=True)
            sync_directory(self.state)

    def linked(self, link: Link) -> Digest | None:
        """The slot that a link points to; None also if it points at no slot, which an update mends.

        Raises StorageError if the file system does not say.
        """
        try:
            return read_link(self.state, link)
        except IntegrityError as error:
            _log.warning("%s", error.message)
            return None

    def prune(self) -> int:
        """Remove what neither `current` nor `previous` needs; returns how many slots and files."""
        kept = {digest for link in LINKS if (digest := self.linked(link))}
        removed = _remove_others(self._directory, {digest.hex for digest in kept})
        _remove_others(self._compiled, {self.timing.name} | self._compiled_of(kept))
        return removed + self._blobs.prune(self._referenced(kept))

    def _compiled_of(self, slots: set[Digest]) -> set[str]:
        """Names of what was compiled of the models of some slots. What cannot be read any more is
        compiled again when it is needed."""
        names: set[str] = set()
        for digest in slots:
            try:
                models = read_slot(slot_path(self.state, digest)).models
            except (StorageError, IntegrityError):
                continue
            names |= {compiled_path(self.state, model.manifest).name for model in models}
        return names

    def _referenced(self, slots: set[Digest]) -> set[Digest]:
        """Every blob that the slots were made of, as far as that can still be told: a slot has
        its own links to them, so that one too many removed is at worst fetched again."""
        found: set[Digest] = set()
        for digest in slots:
            try:
                for model in read_slot(slot_path(self.state, digest)).models:
                    manifest = parse_manifest(self._blobs.read(model.manifest))
                    blobs = manifest.blobs if isinstance(manifest, Manifest) else ()
                    found |= {model.manifest, *(blob.digest for blob in blobs)}
            except (StorageError, IntegrityError) as error:
                _log.warning("slot=%s problem=%s", digest.short, error.message)
        return found


def _size(path: Path) -> int | None:
    """Bytes of a file; None if it is not there or cannot be looked at."""
    try:
        return path.stat().st_size
    except OSError:
        return None


def _remove_others(directory: Path, names: set[str]) -> int:
    """Remove all of a directory but some names; returns how many."""
    removed = 0
    with storage_errors(f"cleaning {directory}"):
        for path in directory.iterdir() if directory.is_dir() else ():
            if path.name not in names:
                remove(path)
                removed += 1
    return removed


def _link_or_copy(source: Path, destination: Path) -> None:
    """Hard-link a file, or copy it durably where the file system has no hard links."""
    try:
        destination.hardlink_to(source)
    except OSError as error:
        if error.errno not in _NO_HARD_LINKS:
            raise
        with source.open("rb") as reader, destination.open("wb") as writer:
            shutil.copyfileobj(reader, writer, 1 << 20)
            writer.flush()
            os.fsync(writer.fileno())
