"""The files of a trust directory: unreadable, damaged, or something else."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from edgectl.errors import TrustError
from edgectl.oci.layout import LayoutStore
from edgectl.trust import metadata
from edgectl.trust.repository import TrustRepository
from tests.unit.trust.releases import opened, release

if TYPE_CHECKING:
    from pathlib import Path

    from edgectl.oci.store import Store


@pytest.mark.parametrize("role", ["timestamp", "snapshot.1", "targets.1"])
def test_other_metadata_is_no_root(
    role: str, store: Store, directory: Path, trust: TrustRepository
) -> None:
    kind = role.partition(".")[0]
    trust.root_file.write_bytes(metadata.read(store.repository("trust"), role, kind))
    with pytest.raises(TrustError, match=f"not a valid TUF root: it is the metadata of {kind}"):
        opened(store, directory).current()


def test_a_trust_directory_that_cannot_be_read_is_said(store: Store, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    found = TrustRepository(store, tmp_path / "file")
    for reading in (found.current, found.exists, found.status):
        with pytest.raises(TrustError, match="cannot be read: Not a directory") as caught:
            reading()
        assert "may you read it" in (caught.value.hint or "")


@pytest.mark.parametrize(
    "content", [b"", b"<<<<<<< ours\n", b"7", b"seven oci-layout:../registry\n", b"\xff 1\n", None]
)
def test_a_damaged_record_of_what_was_seen_is_not_taken_for_none(
    content: bytes | None, store: Store, directory: Path, trust: TrustRepository
) -> None:
    """It would let a registry that was set back pass, and be written over."""
    trust.publish({"shop": release("shop", 1)})
    seen = directory / "seen-timestamp"
    seen.unlink()
    if content is None:
        seen.mkdir()
    else:
        seen.write_bytes(content)
    before = store.repository("trust").resolve("timestamp")
    for verb in (trust.current, trust.refresh, lambda: trust.rotate("timestamp")):
        with pytest.raises(TrustError, match="seen-timestamp") as caught:
            verb()
        assert caught.value.hint
    assert store.repository("trust").resolve("timestamp") == before
    if content is not None:
        seen.unlink()
        assert trust.current() == {"shop": release("shop", 1)}


def test_a_registry_of_any_name_is_remembered(tmp_path: Path, directory: Path) -> None:
    trust = opened(LayoutStore(tmp_path / "two\nlines\u2028of \udcff"), directory)
    trust.init()
    trust.publish({"shop": release("shop", 1)})
    assert trust.current() == {"shop": release("shop", 1)}
    assert len((directory / "seen-timestamp").read_text().splitlines()) == 1
