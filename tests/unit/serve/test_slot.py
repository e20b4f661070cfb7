from __future__ import annotations

import resource
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgectl.digest import Digest
from edgectl.errors import IntegrityError, StorageError, StorageFullError
from edgectl.serve.slot import (
    Slot,
    SlotModel,
    model_path,
    read_link,
    read_slot,
    slot_digest,
    slot_path,
    switch_link,
    write_slot,
)

if TYPE_CHECKING:
    from pathlib import Path

DIGITS = SlotModel(
    "digits", "1.0.0", Digest.of(b"i"), Digest.of(b"m"), "intel-nuc", "onnxruntime", "int8"
)
TUMOUR = replace(DIGITS, name="tumour", manifest=Digest.of(b"t"))
SLOT = Slot("shopfloor", 3, "canary", (DIGITS, TUMOUR))

_names = st.from_regex(r"[a-z][a-z0-9-]{0,20}", fullmatch=True)
_digests = st.binary(max_size=8).map(Digest.of)
_models = st.builds(
    SlotModel, _names, st.text(), _digests, _digests, st.text(), st.text(), st.text()
)
_slots = st.builds(
    Slot,
    st.text(),
    st.integers(min_value=0),
    st.text(),
    st.lists(_models, unique_by=lambda model: model.name).map(tuple),
)


@given(_slots)
def test_slot_survives_its_bytes(slot: Slot) -> None:
    assert Slot.from_bytes(slot.to_bytes()) == slot


@given(st.binary() | st.recursive(st.none() | st.text(), st.lists).map(repr).map(str.encode))
def test_other_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        Slot.from_bytes(data)


def test_digest_says_what_runs_and_not_when() -> None:
    assert slot_digest([DIGITS, TUMOUR]) == slot_digest([TUMOUR, DIGITS])
    assert replace(SLOT, generation=9, ring="stable", fleet="other").digest == SLOT.digest
    moved = replace(DIGITS, index=Digest.of(b"another index of the same manifest"))
    assert slot_digest([moved, TUMOUR]) == SLOT.digest
    assert slot_digest([replace(DIGITS, version="1.1.0"), TUMOUR]) != SLOT.digest
    assert slot_digest([replace(DIGITS, manifest=Digest.of(b"x")), TUMOUR]) != SLOT.digest


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a\0b"])
def test_model_name_cannot_leave_the_slot(name: str) -> None:
    slot = replace(SLOT, models=(replace(DIGITS, name=name),))
    with pytest.raises(ValueError, match="model name"):
        Slot.from_bytes(slot.to_bytes())


def test_same_model_twice_is_refused() -> None:
    slot = replace(SLOT, models=(DIGITS, replace(DIGITS, version="2.0.0")))
    with pytest.raises(ValueError, match="twice"):
        Slot.from_bytes(slot.to_bytes())


def test_write_then_read(tmp_path: Path) -> None:
    directory = slot_path(tmp_path, SLOT.digest)
    directory.mkdir(parents=True)
    write_slot(directory, SLOT)
    assert read_slot(directory) == SLOT
    assert [path.name for path in directory.iterdir()] == ["slot.json"]
    assert model_path(tmp_path, SLOT.digest, "digits") == directory / "models" / "digits"


def test_unreadable_slot_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(StorageError) as missing:
        read_slot(tmp_path)
    assert missing.value.hint
    (tmp_path / "slot.json").write_bytes(b"{")
    with pytest.raises(IntegrityError) as malformed:
        read_slot(tmp_path)
    assert malformed.value.hint
    (tmp_path / "slot.json").write_bytes(b" " * (2 << 20))
    with pytest.raises(IntegrityError, match="larger"):
        read_slot(tmp_path)


def test_failed_write_leaves_the_old_slot(tmp_path: Path) -> None:
    write_slot(tmp_path, SLOT)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, limits[1]))
    try:
        with pytest.raises(StorageFullError):
            write_slot(tmp_path, replace(SLOT, generation=4))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert read_slot(tmp_path) == SLOT
    assert [path.name for path in tmp_path.iterdir()] == ["slot.json"]


def test_links_switch(tmp_path: Path) -> None:
    assert read_link(tmp_path, "current") is None
    for digest in (SLOT.digest, Digest.of(b"next")):
        switch_link(tmp_path, "current", digest)
        assert read_link(tmp_path, "current") == digest
    assert read_link(tmp_path, "previous") is None
    assert [path.name for path in tmp_path.iterdir()] == ["current"]


def test_switch_survives_a_leftover_of_a_crash(tmp_path: Path) -> None:
    (tmp_path / ".current.new").symlink_to("slots/half")
    switch_link(tmp_path, "current", SLOT.digest)
    assert read_link(tmp_path, "current") == SLOT.digest


@pytest.mark.parametrize("target", ["/etc", "slots/short", "../slots/" + "a" * 64, "a" * 64])
def test_link_elsewhere_is_refused(tmp_path: Path, target: str) -> None:
    (tmp_path / "current").symlink_to(target)
    with pytest.raises(IntegrityError):
        read_link(tmp_path, "current")


def test_link_that_is_a_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "current").mkdir()
    with pytest.raises(IntegrityError, match="not a symlink"):
        read_link(tmp_path, "current")
    with pytest.raises(StorageError):
        switch_link(tmp_path, "current", SLOT.digest)
