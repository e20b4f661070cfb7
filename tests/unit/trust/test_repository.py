"""The release repository: what operators write."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import count
from typing import TYPE_CHECKING

import pytest
from tuf.api.metadata import Metadata, Targets

from edgectl.errors import (
    BusyError,
    ConfigError,
    KeyFileError,
    NotFoundError,
    TrustError,
)
from edgectl.oci.layout import LayoutStore
from edgectl.trust import metadata
from edgectl.trust.client import TrustClient
from edgectl.trust.policy import Expiry, KeyPolicy
from edgectl.trust.repository import TrustRepository
from tests.unit.trust.conftest import PASSWORD
from tests.unit.trust.releases import DyingStore, Killed, opened, release

if TYPE_CHECKING:
    from pathlib import Path

    from edgectl.oci.store import Store


def test_what_is_published_is_current(trust: TrustRepository) -> None:
    assert trust.current() == {}
    first = trust.publish({"shop": release("shop", 1)})
    second = trust.publish({"lab": release("lab", 1), "shop": release("shop", 2, "1.1.0")})

    assert second == first + 1
    assert trust.current() == {"shop": release("shop", 2, "1.1.0"), "lab": release("lab", 1)}
    assert trust.history("shop") == [
        (first, release("shop", 1)),
        (second, release("shop", 2, "1.1.0")),
    ]
    assert trust.history("lab") == [(second, release("lab", 1))]
    assert trust.history("absent") == []


def test_publishing_the_same_again_writes_nothing(store: Store, trust: TrustRepository) -> None:
    version = trust.publish({"shop": release("shop", 1)})
    before = store.repository(metadata.REPOSITORY).resolve("timestamp")
    assert trust.publish({"shop": release("shop", 1)}) == version
    assert trust.publish({}) == version
    assert store.repository(metadata.REPOSITORY).resolve("timestamp") == before


def test_roles_have_separate_keys_and_their_thresholds(trust: TrustRepository) -> None:
    status = {role.role: role for role in trust.status()}
    assert (status["root"].threshold, status["root"].keys, status["root"].keys_here) == (2, 3, 3)
    for role in ("targets", "snapshot", "timestamp"):
        assert (status[role].threshold, status[role].keys, status[role].keys_here) == (1, 1, 1)
    assert list(status) == ["root", "targets", "snapshot", "timestamp"]
    assert status["timestamp"].expires < status["snapshot"].expires < status["targets"].expires


def test_documents_are_layers_of_the_targets_so_that_registries_keep_them(
    store: Store, trust: TrustRepository
) -> None:
    trust.publish({"shop": release("shop", 1)})
    version = trust.publish({"lab": release("lab", 1)})
    artifact = metadata.find(store.repository("trust"), f"targets.{version}")
    assert sorted(d.annotations["org.opencontainers.image.title"] for d in artifact.documents) == [
        "fleets/lab.json",
        "fleets/shop.json",
    ]


def test_refresh_renews_the_timestamp_and_what_is_past_half_of_its_life(
    store: Store, directory: Path
) -> None:
    now = datetime(2030, 1, 1, tzinfo=UTC)
    expiry = Expiry(timestamp=3600.0, snapshot=10 * 3600.0, targets=100 * 3600.0)

    def at(hours: float) -> TrustRepository:
        return TrustRepository(
            store,
            directory,
            password=lambda: PASSWORD,
            expiry=expiry,
            now=lambda: now + timedelta(hours=hours),
        )

    def versions() -> dict[str, int]:
        return {role.role: role.version for role in at(0).status()}

    at(0).init()
    first = versions()["timestamp"]
    at(1).refresh()
    assert versions() == {"root": 1, "targets": 1, "snapshot": 1, "timestamp": first + 1}
    at(6).refresh()
    assert versions() == {"root": 1, "targets": 1, "snapshot": 2, "timestamp": first + 2}
    at(51).refresh()
    assert versions() == {"root": 1, "targets": 2, "snapshot": 3, "timestamp": first + 3}
    assert {r.role: r.expires for r in at(0).status()}["timestamp"] == now + timedelta(hours=52)


def test_metadata_that_expired_can_still_be_refreshed(
    store: Store, directory: Path, client: TrustClient
) -> None:
    past = datetime.now(UTC) - timedelta(days=400)
    old = TrustRepository(store, directory, password=lambda: PASSWORD, now=lambda: past)
    old.init()
    old.publish({"shop": release("shop", 1)})
    with pytest.raises(TrustError):
        client.refresh()
    opened(store, directory).refresh()
    client.refresh()
    assert client.release("shop") == release("shop", 1)


def test_init_twice_is_refused(trust: TrustRepository) -> None:
    with pytest.raises(TrustError, match="has a release repository already"):
        trust.init()


def test_an_existing_directory_serves_a_new_registry_without_going_back(
    tmp_path: Path, directory: Path
) -> None:
    first = opened(LayoutStore(tmp_path / "a"), directory)
    first.init()
    device = TrustClient(
        LayoutStore(tmp_path / "a"), tmp_path / "device", first.root_file.read_bytes()
    )
    first.publish({"shop": release("shop", 1)})
    device.refresh()

    moved = opened(LayoutStore(tmp_path / "b"), directory)
    moved.init()
    moved.publish({"shop": release("shop", 2)})

    device = TrustClient(
        LayoutStore(tmp_path / "b"), tmp_path / "device", first.root_file.read_bytes()
    )
    assert device.release("shop") == release("shop", 2)


def test_one_trust_directory_serves_several_registries(tmp_path: Path, directory: Path) -> None:
    registries = [opened(LayoutStore(tmp_path / name), directory) for name in "ab"]
    for number, registry in enumerate(registries):
        registry.init()
        registry.publish({"shop": release("shop", 1 + number)})
    for number, registry in enumerate(registries):
        assert registry.current() == {"shop": release("shop", 1 + number)}
        registry.refresh()
        assert [role.version for role in registry.status()]


def test_a_registry_that_moved_with_its_trust_directory_is_still_known(
    tmp_path: Path, directory: Path
) -> None:
    """A CI runner checks out elsewhere each time: what was seen must not be lost on the way."""
    (tmp_path / "a").mkdir()
    directory.rename(tmp_path / "a" / "trust")
    trust = opened(LayoutStore(tmp_path / "a" / "registry"), tmp_path / "a" / "trust")
    trust.init()
    (tmp_path / "a").rename(tmp_path / "b")
    store = LayoutStore(tmp_path / "b" / "registry")
    old = metadata.read(store.repository("trust"), "timestamp", "timestamp")
    moved = opened(store, tmp_path / "b" / "trust")
    moved.refresh()
    metadata.push(store.repository("trust"), "timestamp", old)
    with pytest.raises(TrustError, match="was set back"):
        moved.current()


def test_keys_rotated_with_one_registry_are_brought_to_another(
    tmp_path: Path, directory: Path
) -> None:
    first = opened(LayoutStore(tmp_path / "a"), directory)
    first.init()
    store = LayoutStore(tmp_path / "b")
    second = opened(store, directory)
    second.init()
    shipped = second.root_file.read_bytes()
    second.publish({"shop": release("shop", 1)})
    device = TrustClient(store, tmp_path / "device", shipped)
    device.refresh()

    first.rotate("root")
    first.rotate("timestamp")
    with pytest.raises(TrustError, match=r"no root\.3") as caught:
        second.current()
    assert "trust init" in (caught.value.hint or "")
    device.refresh()

    second.init()
    assert second.current() == {"shop": release("shop", 1)}
    assert TrustClient(store, tmp_path / "new", shipped).release("shop") == release("shop", 1)
    second.publish({"shop": release("shop", 2)})
    device.refresh()
    assert device.release("shop") == release("shop", 2)
    with pytest.raises(TrustError, match="already"):
        second.init()


def test_rotating_again_brings_what_was_rotated_elsewhere(tmp_path: Path, directory: Path) -> None:
    first = opened(LayoutStore(tmp_path / "a"), directory)
    first.init()
    store = LayoutStore(tmp_path / "b")
    second = opened(store, directory)
    second.init()
    device = TrustClient(store, tmp_path / "device", second.root_file.read_bytes())
    device.refresh()
    first.rotate("timestamp")
    second.rotate("root")
    assert second.status()[0].version == 3
    device.refresh()


def test_an_interrupted_init_is_completed(tmp_path: Path, directory: Path) -> None:
    layout = LayoutStore(tmp_path / "registry")
    dying = DyingStore(layout)
    trust = opened(dying, directory)
    for writes in count():
        dying.left = writes
        try:
            trust.init()
        except Killed:
            continue
        break
    assert writes > 8
    assert opened(layout, directory).current() == {}


def test_publishing_killed_at_any_write_leaves_the_old_release_and_can_be_repeated(
    store: Store, directory: Path, trust: TrustRepository, client: TrustClient
) -> None:
    trust.publish({"shop": release("shop", 1)})
    dying = DyingStore(store)
    publisher = opened(dying, directory)
    for writes in count():
        old, new = release("shop", writes + 1), release("shop", writes + 2)
        dying.left = writes
        try:
            publisher.publish({"shop": new})
        except Killed:
            client.refresh()
            assert client.release("shop") in (old, new)
            _end_leases(store)
            trust.publish({"shop": new})
        else:
            break
        finally:
            client.refresh()
            assert client.release("shop") == new
    assert writes >= 8
    generations = [found.generation for _, found in trust.history("shop")]
    assert generations == list(range(1, writes + 3))


def _end_leases(store: Store) -> None:
    """What ten minutes of waiting do to the lease of a publisher that was killed."""
    repository = store.repository(metadata.REPOSITORY)
    for tag in repository.tags():
        if tag.startswith("lease-"):
            repository.delete(tag)


def test_a_rotation_killed_at_any_write_leaves_valid_metadata(
    tmp_path: Path, directory: Path
) -> None:
    layout = LayoutStore(tmp_path / "registry")
    trust = opened(layout, directory)
    trust.init()
    trust.publish({"shop": release("shop", 1)})
    device = TrustClient(layout, tmp_path / "device", (directory / "1.root.json").read_bytes())
    dying = DyingStore(layout)
    operator = opened(dying, directory)
    for writes in count():
        dying.left = writes
        try:
            operator.rotate("timestamp")
        except Killed:
            continue
        else:
            break
        finally:
            device.refresh()
            assert device.release("shop") == release("shop", 1)
    assert writes >= 10
    opened(layout, directory).refresh()
    device.refresh()


@pytest.mark.parametrize("role", ["root", "targets", "snapshot", "timestamp"])
def test_rotated_keys_take_over_and_history_stays(
    role: str, tmp_path: Path, directory: Path
) -> None:
    layout = LayoutStore(tmp_path / "registry")
    trust = opened(layout, directory)
    trust.init()
    version = trust.publish({"shop": release("shop", 1)})
    before = trust.root_file.read_bytes()
    device = TrustClient(layout, tmp_path / "device", before)
    device.refresh()

    trust.rotate(role)
    trust.publish({"shop": release("shop", 2)})

    assert trust.root_file.read_bytes() != before
    device.refresh()
    assert device.release("shop") == release("shop", 2)
    shipped_later = TrustClient(layout, tmp_path / "later", trust.root_file.read_bytes())
    assert shipped_later.release("shop") == release("shop", 2)
    assert trust.history("shop")[0] == (version, release("shop", 1))
    status = {found.role: found for found in trust.status()}
    assert status["root"].version == 2
    assert status[role].keys == status[role].keys_here == (3 if role == "root" else 1)


def test_a_release_made_meanwhile_is_not_overwritten(
    store: Store, directory: Path, trust: TrustRepository
) -> None:
    trust.publish({"shop": release("shop", 1)})
    trust.publish({"shop": release("shop", 2, "by somebody else")})
    with pytest.raises(BusyError, match="released by somebody else meanwhile"):
        trust.publish({"shop": release("shop", 2, "mine")})
    with pytest.raises(BusyError):
        trust.publish({"shop": release("shop", 1)})
    assert opened(store, directory).current() == {"shop": release("shop", 2, "by somebody else")}


def test_a_registry_that_was_set_back_is_noticed(
    store: Store, directory: Path, trust: TrustRepository
) -> None:
    trust.publish({"shop": release("shop", 1)})
    repository = store.repository("trust")
    old = metadata.read(repository, "timestamp", "timestamp")
    trust.publish({"shop": release("shop", 2)})
    metadata.push(repository, "timestamp", old)
    with pytest.raises(TrustError, match="was set back"):
        opened(store, directory).current()
    with pytest.raises(TrustError, match="was set back"):
        opened(store, directory).publish({"shop": release("shop", 3)})


def test_reading_needs_the_root_alone(store: Store, trust: TrustRepository, tmp_path: Path) -> None:
    trust.publish({"shop": release("shop", 1)})
    reader = tmp_path / "reader"
    reader.mkdir()
    (reader / "root.json").write_bytes(trust.root_file.read_bytes())
    found = TrustRepository(store, reader)
    assert found.current() == {"shop": release("shop", 1)}
    assert found.status()[0].keys_here == 0
    with pytest.raises(KeyFileError, match="holds 0 of the 1 keys"):
        found.refresh()


def test_without_a_password_the_error_says_how_to_give_it(store: Store, directory: Path) -> None:
    with pytest.raises(KeyFileError, match="a password is needed") as caught:
        TrustRepository(store, directory).init()
    assert "EDGECTL_KEY_PASSWORD" in (caught.value.hint or "")


def test_a_wrong_password_changes_nothing(
    store: Store, directory: Path, trust: TrustRepository
) -> None:
    before = store.repository("trust").tags()
    with pytest.raises(KeyFileError, match="password does not open"):
        TrustRepository(store, directory, password=lambda: b"wrong").refresh()
    assert store.repository("trust").tags() == before


def test_a_threshold_that_the_keys_here_cannot_meet_is_said(
    store: Store, directory: Path, trust: TrustRepository
) -> None:
    for name in ("root.key", "root-2.key"):
        (directory / name).unlink()
    with pytest.raises(KeyFileError, match="holds 1 of the 2 keys that have to sign root"):
        opened(store, directory).rotate("root")
    opened(store, directory).refresh()


def test_a_lost_root_is_restored_from_its_copy(directory: Path, trust: TrustRepository) -> None:
    trust.rotate("timestamp")
    for damage in (lambda: trust.root_file.write_text("{"), trust.root_file.unlink):
        damage()
        with pytest.raises(TrustError, match=r"root\.json") as caught:
            trust.status()
        assert "copy of 2.root.json" in (caught.value.hint or "")
    trust.root_file.write_bytes((directory / "2.root.json").read_bytes())
    assert trust.status()[0].version == 2


def test_before_init_there_is_nothing_to_read(
    store: Store, directory: Path, tmp_path: Path
) -> None:
    assert not opened(store, directory).exists()
    opened(LayoutStore(tmp_path / "elsewhere"), directory).init()
    with pytest.raises(NotFoundError, match="no release repository yet") as caught:
        opened(store, directory).current()
    assert "trust init" in (caught.value.hint or "")
    with pytest.raises(TrustError, match="holds no root of trust"):
        opened(store, tmp_path / "empty").current()


@pytest.mark.parametrize(
    ("keys", "thresholds"),
    [({"root": 1}, {"root": 2}), ({}, {"root": 0}), ({"boss": 1}, {}), ({"root": 99}, {})],
)
def test_impossible_policies_are_refused(keys: dict[str, int], thresholds: dict[str, int]) -> None:
    with pytest.raises(ConfigError):
        KeyPolicy(keys, thresholds)


def test_metadata_is_what_python_tuf_reads(store: Store, trust: TrustRepository) -> None:
    version = trust.publish({"shop": release("shop", 1)})
    data = metadata.read(store.repository("trust"), f"targets.{version}", "targets")
    targets = Metadata[Targets].from_bytes(data).signed
    assert targets.version == version
    assert targets.targets["fleets/shop.json"].length == len(release("shop", 1).to_bytes())
