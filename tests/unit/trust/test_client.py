"""What a device reads as a release, and what it does when something is in the way."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from edgectl.errors import (
    NotFoundError,
    RegistryUnavailableError,
    StorageError,
    TrustError,
)
from edgectl.trust.client import TrustClient
from edgectl.trust.repository import TrustRepository
from tests.support.faults import Status
from tests.support.registry import Registry
from tests.unit.trust.conftest import PASSWORD
from tests.unit.trust.releases import release

if TYPE_CHECKING:
    from pathlib import Path

    from edgectl.oci.store import Store


def test_a_release_is_read(trust: TrustRepository, client: TrustClient, tmp_path: Path) -> None:
    trust.publish({"shop": release("shop", 1), "lab": release("lab", 1)})
    assert client.release("shop") == release("shop", 1)
    assert client.release("lab") == release("lab", 1)
    expires = client.expires()
    assert expires is not None
    assert timedelta(hours=23) < expires - datetime.now(UTC) <= timedelta(hours=24)


def test_a_fleet_without_a_release_is_named(trust: TrustRepository, client: TrustClient) -> None:
    trust.publish({"shop": release("shop", 1)})
    with pytest.raises(NotFoundError, match="no release of a fleet 'absent'"):
        client.release("absent")


def test_before_the_first_release_nothing_is_there(client: TrustClient) -> None:
    assert client.head() is None
    assert client.expires() is None
    with pytest.raises(NotFoundError, match="release metadata is missing"):
        client.refresh()


def test_a_poll_is_one_head(directory: Path, tmp_path: Path) -> None:
    with Registry() as registry:
        store = registry.store("edge")
        trust = TrustRepository(store, directory, password=lambda: PASSWORD)
        trust.init()
        client = TrustClient(store, tmp_path / "device", trust.root_file.read_bytes())
        first = client.head()
        registry.requests.clear()
        assert client.head() == first
        assert [request.method for request in registry.requests] == ["HEAD"]
        trust.publish({"shop": release("shop", 1)})
        assert client.head() not in {None, first}


def test_an_unchanged_refresh_reads_the_timestamp_and_looks_for_a_root(
    directory: Path, tmp_path: Path
) -> None:
    with Registry() as registry:
        store = registry.store("edge")
        trust = TrustRepository(store, directory, password=lambda: PASSWORD)
        trust.init()
        trust.publish({"shop": release("shop", 1)})
        client = TrustClient(store, tmp_path / "device", trust.root_file.read_bytes())
        client.release("shop")
        registry.requests.clear()
        client.refresh()
        assert client.release("shop") == release("shop", 1)
        assert registry.count("GET") == 3


# What is not an attack.


@pytest.mark.parametrize("path", ["/manifests/timestamp", "/manifests/root.2", "/blobs/"])
def test_a_registry_that_is_down_stays_a_registry_error(
    path: str, directory: Path, tmp_path: Path
) -> None:
    with Registry() as registry:
        store = registry.store("edge")
        trust = TrustRepository(store, directory, password=lambda: PASSWORD)
        trust.init()
        client = TrustClient(store, tmp_path / "device", trust.root_file.read_bytes())
        registry.inject(Status(503, retry_after=7), method="GET", path=path)
        with pytest.raises(RegistryUnavailableError) as caught:
            client.refresh()
        assert caught.value.retry_after == 7
        registry.heal()
        client.refresh()


@pytest.mark.parametrize("name", ["timestamp.json", "snapshot.json", "targets.json", "root.json"])
@pytest.mark.parametrize("garbage", [b"", b"\x00" * 100, b'{"signed": {}}', b"[" * 100_000])
def test_a_damaged_local_copy_is_replaced(
    name: str, garbage: bytes, trust: TrustRepository, client: TrustClient, tmp_path: Path
) -> None:
    trust.publish({"shop": release("shop", 1)})
    client.release("shop")
    (tmp_path / "device" / name).write_bytes(garbage)
    client.refresh()
    assert client.release("shop") == release("shop", 1)


def test_a_damaged_or_lost_document_is_fetched_again(
    trust: TrustRepository, client: TrustClient, tmp_path: Path
) -> None:
    trust.publish({"shop": release("shop", 1)})
    client.release("shop")
    (document,) = (tmp_path / "device").glob("release-*.json")
    document.write_bytes(b"damaged")
    assert client.release("shop") == release("shop", 1)
    document.unlink()
    assert client.release("shop") == release("shop", 1)


def test_only_the_newest_document_is_kept(
    trust: TrustRepository, client: TrustClient, tmp_path: Path
) -> None:
    for generation in (1, 2, 3):
        trust.publish({"shop": release("shop", generation)})
        client.refresh()
        client.release("shop")
    assert len(list((tmp_path / "device").glob("release-*.json"))) == 1


def test_a_root_of_trust_that_is_none_is_said_plainly(store: Store, tmp_path: Path) -> None:
    for data in (b"", b"{}", b'{"signed":{"_type":"timestamp"},"signatures":[]}'):
        client = TrustClient(store, tmp_path / "device", data)
        with pytest.raises(TrustError, match="root of this device is not usable"):
            client.refresh()


def test_a_state_directory_that_cannot_be_written_is_a_storage_error(
    trust: TrustRepository, directory: Path, store: Store, tmp_path: Path
) -> None:
    (tmp_path / "file").write_bytes(b"")
    root = (directory / "1.root.json").read_bytes()
    with pytest.raises(StorageError):
        TrustClient(store, tmp_path / "file" / "device", root).refresh()
