"""python-tuf's own client, with nothing of ours but the fetcher, accepts the repository."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from tuf.api.exceptions import DownloadHTTPError
from tuf.ngclient import Updater

from edgectl.trust.fetcher import METADATA_URL, TARGETS_URL, RegistryFetcher
from edgectl.trust.release import FleetRelease
from tests.unit.trust.releases import release

if TYPE_CHECKING:
    from pathlib import Path

    from edgectl.oci.store import Store
    from edgectl.trust.repository import TrustRepository


def updater(store: Store, directory: Path, root: bytes) -> Updater:
    directory.mkdir(exist_ok=True)
    return Updater(
        metadata_dir=str(directory),
        metadata_base_url=METADATA_URL,
        target_dir=str(directory),
        target_base_url=TARGETS_URL,
        fetcher=RegistryFetcher(store.repository("trust")),
        bootstrap=root,
    )


def read(client: Updater) -> FleetRelease:
    target = client.get_targetinfo("fleets/shop.json")
    assert target is not None
    from pathlib import Path

    return FleetRelease.from_bytes(Path(client.download_target(target)).read_bytes())


def test_python_tufs_own_client_accepts_the_repository(
    store: Store, trust: TrustRepository, directory: Path, tmp_path: Path
) -> None:
    root = (directory / "1.root.json").read_bytes()
    trust.publish({"shop": release("shop", 1), "lab": release("lab", 1)})
    client = updater(store, tmp_path / "device", root)
    client.refresh()
    assert read(client) == release("shop", 1)
    assert client.get_targetinfo("fleets/absent.json") is None


def test_it_reads_a_document_though_its_targets_come_from_the_cache(
    store: Store, trust: TrustRepository, directory: Path, tmp_path: Path
) -> None:
    root = (directory / "1.root.json").read_bytes()
    trust.publish({"shop": release("shop", 1)})
    updater(store, tmp_path / "device", root).refresh()
    trust.refresh()
    assert read(updater(store, tmp_path / "device", root)) == release("shop", 1)


def test_it_follows_rotated_keys(
    store: Store, trust: TrustRepository, directory: Path, tmp_path: Path
) -> None:
    root = (directory / "1.root.json").read_bytes()
    trust.rotate("root")
    trust.rotate("targets")
    trust.publish({"shop": release("shop", 1)})
    assert read(updater(store, tmp_path / "device", root)) == release("shop", 1)


@pytest.mark.parametrize(
    "url",
    [
        "oci:metadata/2.root.json",
        "oci:metadata/9.targets.json",
        "oci:metadata/bins.json",
        "oci:targets/fleets/shop.json",
        f"oci:targets/fleets/{'0' * 64}.shop.json",
        "https://example.invalid/timestamp.json",
    ],
)
def test_what_is_absent_is_a_404(store: Store, trust: TrustRepository, url: str) -> None:
    fetcher = RegistryFetcher(store.repository("trust"))
    with pytest.raises(DownloadHTTPError) as caught:
        fetcher.download_bytes(url, 1000)
    assert caught.value.status_code == 404
