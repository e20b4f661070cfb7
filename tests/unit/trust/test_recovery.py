"""Releases of which parts are lost or damaged: what is noticed, and how an operator goes on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from edgectl.digest import Digest
from edgectl.errors import IntegrityError, NotFoundError, TrustError
from edgectl.oci.descriptor import OCI_INDEX, Index
from edgectl.oci.layout import LayoutStore
from edgectl.trust import metadata
from edgectl.trust.client import TrustClient
from edgectl.trust.repository import TrustRepository
from tests.unit.trust.releases import opened, release

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from edgectl.oci.store import Store


def test_a_release_whose_timestamp_is_lost_is_gone_on_from(
    store: Store, directory: Path, trust: TrustRepository, client: TrustClient
) -> None:
    trust.publish({"shop": release("shop", 1)})
    trust.publish({"shop": release("shop", 2)})
    for _ in range(3):
        trust.refresh()
    client.refresh()
    store.repository("trust").delete("timestamp")

    again = opened(store, directory)
    for reading in (again.exists, again.current, again.refresh):
        with pytest.raises(TrustError, match="not the tag timestamp") as caught:
            reading()
        assert "trust init" in (caught.value.hint or "")
    again.init()

    assert again.current() == {"shop": release("shop", 2)}
    assert [found.generation for _, found in again.history("shop")] == [1, 2]
    client.refresh()
    assert client.release("shop") == release("shop", 2)
    with pytest.raises(TrustError, match="already"):
        again.init()


def test_a_lost_release_is_not_taken_for_none_by_who_never_saw_it(
    store: Store, trust: TrustRepository, tmp_path: Path
) -> None:
    trust.publish({"shop": release("shop", 1)})
    store.repository("trust").delete("timestamp")
    reader = tmp_path / "reader"
    reader.mkdir()
    (reader / "root.json").write_bytes(trust.root_file.read_bytes())
    with pytest.raises(TrustError, match="not the tag timestamp"):
        TrustRepository(store, reader).exists()


def test_releases_of_another_root_are_not_written_over(
    store: Store, trust: TrustRepository, tmp_path: Path
) -> None:
    trust.publish({"shop": release("shop", 1)})
    repository = store.repository("trust")
    repository.delete("timestamp")
    before = repository.tags()
    with pytest.raises(TrustError, match="no release that the trust directory's keys"):
        opened(store, tmp_path / "another").init()
    assert repository.tags() == before
    assert not list((tmp_path / "another").iterdir())


def test_a_registry_that_was_emptied_is_noticed_and_can_begin_anew(
    store: Store, trust: TrustRepository, client: TrustClient
) -> None:
    trust.publish({"shop": release("shop", 1)})
    client.refresh()
    repository = store.repository("trust")
    for tag in repository.tags():
        repository.delete(tag)
    with pytest.raises(TrustError, match="had releases, and has none now") as caught:
        trust.exists()
    assert "trust init" in (caught.value.hint or "")
    trust.init()
    assert trust.current() == {}
    client.refresh()


def index_under_timestamp(layout: Path) -> None:
    repository = LayoutStore(layout).repository("trust")
    repository.push_manifest(Index(()).to_bytes(), OCI_INDEX, tag="timestamp")


def damaged(role: str, version: str = "") -> Callable[[Path], None]:
    def damage(layout: Path) -> None:
        repository = LayoutStore(layout).repository("trust")
        flip(layout, metadata.find(repository, role + version).metadata.digest)

    return damage


def flip(layout: Path, digest: Digest) -> None:
    blob = layout / "trust" / "blobs" / "sha256" / digest.hex
    blob.write_bytes(blob.read_bytes()[:-1] + b"!")


@pytest.mark.parametrize("way", ["init", "rotate"])
@pytest.mark.parametrize(
    ("spoil", "kept"),
    [
        (index_under_timestamp, 2),
        (damaged("timestamp"), 2),
        (damaged("snapshot", ".3"), 2),
        (damaged("targets", ".3"), 1),
    ],
)
def test_a_damaged_release_is_gone_on_from(
    spoil: Callable[[Path], None],
    kept: int,
    way: str,
    tmp_path: Path,
    directory: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    store = LayoutStore(tmp_path / "registry")
    trust = opened(store, directory)
    trust.init()
    for generation in (1, 2):
        trust.publish({"shop": release("shop", generation)})
    device = TrustClient(store, tmp_path / "device", trust.root_file.read_bytes())
    device.refresh()
    spoil(tmp_path / "registry")

    for reading in (trust.current, trust.refresh):
        with pytest.raises(IntegrityError) as caught:
            reading()
        assert "trust init" in (caught.value.hint or "")
    if way == "init":
        trust.init()
    else:
        trust.rotate("timestamp")

    assert trust.current() == {"shop": release("shop", kept)}
    assert ("going on from targets.2" in caplog.text) == (kept == 1)
    device.refresh()
    assert device.release("shop") == release("shop", kept)


def test_something_else_under_the_next_root_is_named(store: Store, trust: TrustRepository) -> None:
    store.repository("trust").push_manifest(Index(()).to_bytes(), OCI_INDEX, tag="root.2")
    for verb in (trust.current, trust.refresh, trust.init):
        with pytest.raises(IntegrityError, match=r"root\.2 cannot be read") as caught:
            verb()
        assert "delete the tag root.2" in (caught.value.hint or "")


def test_targets_that_declare_too_much_hide_no_others(
    store: Store, trust: TrustRepository, caplog: pytest.LogCaptureFixture
) -> None:
    version = trust.publish({"shop": release("shop", 1)})
    repository = store.repository("trust")
    data = b" " * (metadata.MAX_BYTES["targets"] + 1)
    metadata.push(repository, f"targets.{version - 1}", data)
    assert [found.generation for _, found in trust.history("shop")] == [1]
    assert f"targets.{version - 1} is left out" in caplog.text
    metadata.push(repository, f"targets.{version + 1}", data)
    repository.delete("timestamp")
    trust.init()
    assert trust.current() == {"shop": release("shop", 1)}


@pytest.mark.parametrize("gone", [False, True])
def test_history_leaves_out_what_cannot_be_read(
    gone: bool, tmp_path: Path, directory: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = LayoutStore(tmp_path / "registry")
    trust = opened(store, directory)
    trust.init()
    for generation in (1, 2, 3):
        version = trust.publish({"shop": release("shop", generation)})
    trust.publish({"lab": release("lab", 1)})

    def spoil(digest: Digest) -> None:
        if gone:
            (tmp_path / "registry/trust/blobs/sha256" / digest.hex).unlink()
        else:
            flip(tmp_path / "registry", digest)

    spoil(Digest.of(release("shop", 1).to_bytes()))
    assert [found.generation for _, found in trust.history("shop")] == [2, 3]
    assert f"targets.{version - 2} is left out" in caplog.text
    spoil(metadata.find(store.repository("trust"), f"targets.{version - 1}").metadata.digest)
    assert [found.generation for _, found in trust.history("shop")] == [3]
    # Without the current one nothing can be said of the fleet.
    spoil(Digest.of(release("shop", 3).to_bytes()))
    with pytest.raises(NotFoundError if gone else IntegrityError):
        trust.history("shop")
    assert len(trust.history("lab")) == 1
