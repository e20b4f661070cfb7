from __future__ import annotations

import errno
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from edgectl.agent.blobs import BlobStore
from edgectl.agent.slots import FILEPATH, SlotStore, model_files
from edgectl.digest import Digest
from edgectl.errors import IntegrityError, StorageFullError
from edgectl.oci.descriptor import EMPTY_CONFIG, Descriptor, Manifest
from edgectl.serve.slot import Slot, SlotModel, model_path, slot_path, switch_link

GB = 1 << 30


def layer(path: str, data: bytes = b"data") -> Descriptor:
    return Descriptor.of(data, "application/octet-stream", annotations={FILEPATH: path})


class State:
    """A state directory with packages put into its blob store."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.blobs = BlobStore(path)
        self.blobs.prepare()
        self.slots = SlotStore(path, self.blobs)

    def add(self, *contents: bytes) -> tuple[Slot, dict[str, dict[str, Descriptor]]]:
        """One model with a file for each content, downloaded."""
        manifest = Manifest(
            EMPTY_CONFIG, tuple(layer(f"file-{n}", data) for n, data in enumerate(contents))
        )
        data = manifest.to_bytes()
        self.blobs.put(Digest.of(data), data)
        self.blobs.put(EMPTY_CONFIG.digest, b"{}")
        for content in contents:
            self.blobs.put(Digest.of(content), content)
        model = SlotModel(
            "m", "1.0.0", Digest.of(b"index"), Digest.of(data), "t", "onnxruntime", "fp32"
        )
        return Slot("fleet", 1, "all", (model,)), {"m": model_files(manifest)}


@pytest.fixture
def state(tmp_path: Path) -> State:
    return State(tmp_path)


def listed(path: Path) -> list[str]:
    return sorted(str(p.relative_to(path)) for p in path.rglob("*"))


def test_a_slot_is_made_of_links(state: State) -> None:
    slot, files = state.add(b"one", b"two")
    state.slots.assemble(slot, files)
    directory = model_path(state.path, slot.digest, "m")
    assert (directory / "file-0").read_bytes() == b"one"
    assert (directory / "file-1").samefile(state.blobs.path(Digest.of(b"two")))
    assert state.slots.is_usable(slot.digest)
    assert not state.slots.is_committed(slot.digest)
    state.slots.mark_committed(slot.digest)
    assert state.slots.is_committed(slot.digest)


def test_without_hard_links_it_is_copied(state: State, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path, target: Path) -> None:
        raise OSError(errno.EPERM, "no hard links on this file system")

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    slot, files = state.add(b"one")
    state.slots.assemble(slot, files)
    copy = model_path(state.path, slot.digest, "m") / "file-0"
    assert copy.read_bytes() == b"one"
    assert copy.stat().st_nlink == 1


def test_a_damaged_slot_is_made_again(state: State) -> None:
    slot, files = state.add(b"one")
    state.slots.assemble(slot, files)
    file = model_path(state.path, slot.digest, "m") / "file-0"
    file.unlink()
    state.slots.assemble(slot, files)
    assert file.read_bytes() == b"one"


@pytest.mark.parametrize("data", [None, b"", b"on", b"one and more"])
def test_a_file_that_is_lost_or_has_another_length_is_damage(
    state: State, data: bytes | None
) -> None:
    slot, files = state.add(b"one", b"two")
    state.slots.assemble(slot, files)
    state.slots.mark_committed(slot.digest)
    assert state.slots.has_proven_itself(slot.digest)
    file = model_path(state.path, slot.digest, "m") / "file-0"
    file.unlink()
    if data is not None:
        file.write_bytes(data)
    assert not state.slots.has_proven_itself(slot.digest)
    state.slots.assemble(slot, files)
    assert state.slots.has_proven_itself(slot.digest)  # it is what passed its soak
    assert file.read_bytes() == b"one"


def test_a_slot_does_without_the_manifests_of_its_models(state: State) -> None:
    slot, files = state.add(b"one")
    state.slots.assemble(slot, files)
    state.slots.mark_committed(slot.digest)
    shutil.rmtree(state.blobs.directory)
    assert state.slots.has_proven_itself(slot.digest)


def test_what_an_earlier_attempt_left_is_no_hindrance(state: State) -> None:
    slot, files = state.add(b"one")
    leftover = state.path / "slots" / f".{slot.digest.hex}.new" / "models"
    leftover.mkdir(parents=True)
    slot_path(state.path, slot.digest).mkdir()
    state.slots.assemble(slot, files)
    assert state.slots.is_usable(slot.digest)
    assert listed(state.path / "slots")[0] == slot.digest.hex


def test_a_missing_blob_leaves_nothing_behind(state: State) -> None:
    slot, files = state.add(b"one")
    state.blobs.path(Digest.of(b"one")).unlink()
    with pytest.raises(Exception, match="staging slot"):
        state.slots.assemble(slot, files)
    assert listed(state.path / "slots") == []


@pytest.mark.parametrize(
    "name",
    [
        *("", ".", "..", "../x", "/etc/passwd", "a\\b", "a\0b", ".hidden", "x" * 256, "é" * 128),
        *("a/../../x", "a//b", "a/", "a/./b", "a/.hidden/b", "a/b\\..\\x", "/".join("a" * 17)),
    ],
)
def test_names_that_could_lead_elsewhere(name: str) -> None:
    with pytest.raises(IntegrityError, match="not a plain name"):
        model_files(Manifest(EMPTY_CONFIG, (layer(name),)))


def test_names_without_annotation_or_twice() -> None:
    bare = replace(layer("x"), annotations={})
    with pytest.raises(IntegrityError, match="not a plain name"):
        model_files(Manifest(EMPTY_CONFIG, (bare,)))
    with pytest.raises(IntegrityError, match="two layers"):
        model_files(Manifest(EMPTY_CONFIG, (layer("x"), layer("x", b"other"))))
    with pytest.raises(IntegrityError, match="to 'x' and to 'x/y/z' in it"):
        model_files(Manifest(EMPTY_CONFIG, (layer("x"), layer("x/y/z", b"other"))))


def test_a_model_may_have_directories(state: State) -> None:
    slot, files = state.add(b"weights", b"spec", b"readme")
    paths = ("model.mlpackage/Data/weight.bin", "model.mlpackage/Manifest.json", "README.md")
    files = {"m": dict(zip(paths, files["m"].values(), strict=True))}
    state.slots.assemble(slot, files)
    directory = model_path(state.path, slot.digest, "m")
    assert [(directory / path).read_bytes() for path in paths] == [b"weights", b"spec", b"readme"]
    (directory / paths[0]).unlink()
    state.slots.assemble(slot, files)  # not whole: made again
    assert (directory / paths[0]).is_file()


def test_pruning_keeps_what_the_links_need(state: State) -> None:
    slots = []
    for content in (b"old", b"previous", b"current"):
        slot, files = state.add(content, b"shared")
        state.slots.assemble(slot, files)
        slots.append(slot.digest)
    switch_link(state.path, "previous", slots[1])
    switch_link(state.path, "current", slots[2])
    (state.blobs.directory / ("0" * 64 + ".partial")).write_bytes(b"half")
    assert state.slots.prune() > 0
    assert not slot_path(state.path, slots[0]).exists()
    assert all(state.slots.is_usable(digest) for digest in slots[1:])
    for content in (b"previous", b"current", b"shared", b"{}"):
        assert state.blobs.path(Digest.of(content)).exists()
    assert not state.blobs.path(Digest.of(b"old")).exists()
    assert len(list(state.blobs.directory.iterdir())) == 6
    assert state.slots.prune() == 0


def staged(state: State, *contents: bytes) -> list[Digest]:
    """A slot for each content, the last `current` and the one before it `previous`."""
    digests = []
    for content in contents:
        slot, files = state.add(content)
        state.slots.assemble(slot, files)
        digests.append(slot.digest)
    for link, digest in zip(("current", "previous"), reversed(digests), strict=False):
        switch_link(state.path, "current" if link == "current" else "previous", digest)
    return digests


def test_pruning_goes_on_without_the_manifests_of_what_it_keeps(state: State) -> None:
    """Blobs may be lost or rot; a slot has its own links to them, and the next update must come."""
    old, previous, current = staged(state, b"old", b"previous", b"current")
    for path in state.blobs.directory.iterdir():
        path.write_bytes(b"rotten")
    state.slots.prune()
    assert not slot_path(state.path, old).exists()
    assert slot_path(state.path, previous).exists()
    assert slot_path(state.path, current).exists()
    shutil.rmtree(state.blobs.directory)
    state.slots.prune()


@pytest.mark.parametrize("link", ["current", "previous"])
def test_pruning_goes_on_where_a_link_leads_nowhere(state: State, link: str) -> None:
    digests = staged(state, b"old", b"previous", b"current")
    shutil.rmtree(slot_path(state.path, digests[-1 if link == "current" else -2]))
    state.slots.prune()
    assert not slot_path(state.path, digests[0]).exists()


def test_pruning_removes_whatever_else_lies_about(state: State) -> None:
    staged(state, b"previous", b"current")
    (state.path / "slots" / "a file").write_text("x")
    (state.path / "slots" / "a link").symlink_to("/etc")
    (state.blobs.directory / "a directory").mkdir()
    (state.blobs.directory / "a directory" / "file").write_text("x")
    assert state.slots.prune() == 3
    assert state.slots.prune() == 0


def test_a_file_in_the_place_of_a_slot_is_no_hindrance(state: State) -> None:
    slot, files = state.add(b"one")
    slot_path(state.path, slot.digest).parent.mkdir()
    slot_path(state.path, slot.digest).write_text("x")
    state.slots.assemble(slot, files)
    assert state.slots.is_usable(slot.digest)


def test_a_damaged_blob_is_removed(state: State) -> None:
    data = b"good content"
    descriptor = Descriptor.of(data, "x")
    state.blobs.put(descriptor.digest, data)
    state.blobs.check(descriptor)
    path = state.blobs.path(descriptor.digest)
    path.write_bytes(b"evil content")
    with pytest.raises(IntegrityError, match=str(descriptor.digest)):
        state.blobs.read(descriptor.digest)
    with pytest.raises(IntegrityError, match=str(descriptor.digest)):
        state.blobs.check(descriptor)
    assert not path.exists()


def test_space_is_checked_with_numbers(state: State) -> None:
    blob = Descriptor("x", Digest.of(b"x"), 2 * GB)
    state.blobs.require_space([blob], GB, 3 * GB)
    with pytest.raises(StorageFullError, match=r"needs 2\.0 GiB and 1\.0 GiB .* 2\.5 GiB left"):
        state.blobs.require_space([blob], GB, 5 * GB // 2)
    state.blobs.require_space([], GB, 0)


def test_what_has_arrived_needs_no_space_again(state: State) -> None:
    """A download that was cut off must not be refused for the room that it takes itself."""
    blob = Descriptor("x", Digest.of(b"x"), 1000)
    path = state.blobs.path(blob.digest)
    path.with_name(f"{path.name}.partial").write_bytes(b"x" * 900)
    state.blobs.require_space([blob], 50, 150)
    with pytest.raises(StorageFullError):
        state.blobs.require_space([blob], 51, 150)


def test_everything_is_synced_before_it_has_its_name(
    state: State, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The order of fsync and rename as the kernel sees it."""
    order: list[str] = []
    fsync, rename = os.fsync, Path.rename

    def recording_fsync(descriptor: int) -> None:
        order.append(f"sync {Path(f'/proc/self/fd/{descriptor}').readlink().name}")
        fsync(descriptor)

    def recording_rename(self: Path, target: Path) -> Path:
        order.append(f"rename {self.name}")
        return rename(self, target)

    slot, files = state.add(b"one")
    monkeypatch.setattr(os, "fsync", recording_fsync)
    monkeypatch.setattr(Path, "rename", recording_rename)
    state.slots.assemble(slot, files)
    temporary = f".{slot.digest.hex}.new"
    named = order.index(f"rename {temporary}")
    for directory in ("m", "models", temporary):
        assert order.index(f"sync {directory}") < named
    assert order[-1] == "sync slots"
