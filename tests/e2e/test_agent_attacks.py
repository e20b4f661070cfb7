"""Attacks on what a device is given, and a device that has no room for it."""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING

import pytest

from edgectl.agent.loop import poll_once
from edgectl.agent.report import status
from edgectl.digest import Digest
from edgectl.errors import (
    EdgectlError,
    IntegrityError,
    NotFoundError,
    SignatureError,
    StorageError,
    StorageFullError,
)
from edgectl.oci import referrers
from edgectl.oci.descriptor import Index, Manifest, parse_manifest
from edgectl.oci.layout import LayoutStore
from edgectl.serve.slot import read_link, read_slot, slot_path
from edgectl.trust import attestation, keys, referrer
from tests.support.fleet import Fleet, ModelOptions
from tests.support.namespaces import SmallDisk

if TYPE_CHECKING:
    from edgectl.agent.config import DeviceConfig
    from edgectl.trust.release import ModelRef

EDGECTL = str(Path(sys.executable).with_name("edgectl"))


@pytest.fixture
def fleet(tmp_path: Path) -> Fleet:
    fleet = Fleet(tmp_path, LayoutStore(tmp_path / "registry"))
    fleet.release(fleet.publish_model())
    poll_once(fleet.config(), Event())
    return fleet


def refused(config: DeviceConfig) -> EdgectlError:
    with pytest.raises(EdgectlError) as caught:
        poll_once(config, Event())
    assert status(config)["slot"]["models"][0]["version"] == "1.0.0"
    assert status(config)["failed"] == []
    return caught.value


def served_version(state: Path) -> str:
    digest = read_link(state, "current")
    assert digest is not None
    return read_slot(slot_path(state, digest)).models[0].version


def blobs(fleet: Fleet) -> Path:
    return fleet.directory / "registry" / "models" / "brightness" / "blobs" / "sha256"


def added_blobs(fleet: Fleet) -> set[Path]:
    """Publish and release a version; the blobs that it added and a device reads."""
    before = set(blobs(fleet).iterdir())
    model = fleet.publish_model(version="2.0.0")
    fleet.release(model)
    return set(blobs(fleet).iterdir()) - before - overview_blobs(fleet, model)


def overview_blobs(fleet: Fleet, model: ModelRef) -> set[Path]:
    """What an index holds for tools that know only images: no device reads it."""
    repository = fleet.store.repository(model.repository)
    index = parse_manifest(repository.read_manifest(str(model.digest))[1])
    assert isinstance(index, Index)
    (overview,) = (item for item in index.manifests if "dev.edgectl.target" not in item.annotations)
    manifest = parse_manifest(repository.read_manifest(str(overview.digest))[1])
    assert isinstance(manifest, Manifest)
    listed = repository.resolve(referrers.fallback_tag(overview.digest))
    assert listed is not None
    unread = {overview.digest, manifest.config.digest, listed.digest}
    for bundle in referrer.find(repository, overview):
        _, data = repository.read_manifest(str(bundle.digest))
        unread |= {bundle.digest, *(blob.digest for blob in referrer.blobs(data))}
    return {blobs(fleet) / digest.hex for digest in unread}


def test_unsigned(fleet: Fleet) -> None:
    fleet.release(fleet.publish_model(version="2.0.0", sign=False))
    error = refused(fleet.config())
    assert isinstance(error, SignatureError)
    assert "not signed" in error.message


def test_signed_with_another_key(fleet: Fleet) -> None:
    fleet.release(fleet.publish_model(version="2.0.0", key=keys.generate()))
    error = refused(fleet.config())
    assert isinstance(error, SignatureError)
    assert "none of the accepted keys" in error.message


def test_only_the_index_is_signed(fleet: Fleet) -> None:
    from edgectl.trust import signature

    model = fleet.publish_model(version="2.0.0", sign=False)
    repository = fleet.store.repository(model.repository)
    index, _ = repository.read_manifest(str(model.digest))
    signature.sign(repository, index, fleet.key)
    fleet.release(model)
    error = refused(fleet.config())
    assert isinstance(error, SignatureError)
    assert str(model.digest) not in error.message


def test_an_attestation_is_no_signature(fleet: Fleet) -> None:
    model = fleet.publish_model(version="2.0.0", sign=False)
    repository = fleet.store.repository(model.repository)
    index, _ = repository.read_manifest(str(model.digest))
    attestation.attest(repository, index, "https://slsa.dev/provenance/v1", {}, fleet.key)
    fleet.release(model)
    error = refused(fleet.config())
    assert isinstance(error, SignatureError)
    assert "is not a signature" in error.message


def test_any_byte_missing_from_any_blob_is_refused_by_name(fleet: Fleet) -> None:
    """Index, manifest, config, files, signatures: whatever a fresh device reads."""
    refused_names = set()
    for path in sorted(added_blobs(fleet)):
        data = path.read_bytes()
        path.write_bytes(data[:-1] if len(data) > 1 else b"")
        fresh = fleet.config(f"fresh-{path.name[:8]}")
        with pytest.raises((IntegrityError, SignatureError)) as caught:
            poll_once(fresh, Event())
        assert path.name in caught.value.message
        assert status(fresh)["slot"] is None
        refused_names.add(path.name)
        path.write_bytes(data)
    assert len(refused_names) >= 8


def test_a_blob_for_nobody_here_is_refused_only_where_the_directory_is_checked(
    fleet: Fleet,
) -> None:
    model = fleet.publish_model(version="2.0.0")
    fleet.release(model)
    damaged = min(overview_blobs(fleet, model) - {blobs(fleet) / Digest.of(b"{}").hex})
    damaged.write_bytes(damaged.read_bytes()[:-1])
    checking = fleet.config(access={"checkDirectory": True})
    error = refused(checking)
    assert isinstance(error, IntegrityError)
    assert damaged.name in error.message
    assert error.hint is not None
    assert "copy the directory again" in error.hint
    assert poll_once(fleet.config(), Event()).result == "updated"


def test_any_byte_changed_is_refused_by_name(fleet: Fleet) -> None:
    for path in sorted(added_blobs(fleet)):
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
        fresh = fleet.config(f"fresh-{path.name[:8]}")
        with pytest.raises((IntegrityError, SignatureError)) as caught:
            poll_once(fresh, Event())
        assert path.name in caught.value.message
        data[len(data) // 2] ^= 1
        path.write_bytes(data)


def test_a_withheld_blob(fleet: Fleet) -> None:
    largest = max(added_blobs(fleet), key=lambda path: path.stat().st_size)
    largest.rename(fleet.directory / "withheld")
    assert isinstance(refused(fleet.config()), (NotFoundError, IntegrityError))
    (fleet.directory / "withheld").rename(largest)
    assert poll_once(fleet.config(), Event()).result == "updated"


def test_a_manifest_swapped_for_an_older_signed_one(fleet: Fleet) -> None:
    """The registry answers a digest with other, genuinely signed content."""
    old = fleet.publish_model()
    new = fleet.publish_model(version="2.0.0")
    fleet.release(new)
    (blobs(fleet) / new.digest.hex).write_bytes((blobs(fleet) / old.digest.hex).read_bytes())
    error = refused(fleet.config())
    assert isinstance(error, IntegrityError)
    assert new.digest.hex in error.message


def test_no_room_is_said_before_the_download(fleet: Fleet) -> None:
    large = ModelOptions(padding=1 << 20)
    fleet.release(fleet.publish_model(version="2.0.0", options=large))
    config = fleet.config(limits={"reserve": "1000Ti"})
    error = refused(config)
    assert isinstance(error, StorageFullError)
    assert "the update needs 1.0 MiB and 1000.0 TiB have to stay free" in error.message


def test_a_disk_that_fills_up(fleet: Fleet) -> None:
    device, state = fleet.device("small", limits={"reserve": "0"}), fleet.directory / "small/state"
    with SmallDisk(state, 700_000) as disk:

        def agent(verb: str) -> subprocess.CompletedProcess[str]:
            command = disk.command(EDGECTL, "agent", verb, "--config", str(device))
            return subprocess.run(command, check=False, capture_output=True, text=True)

        def once() -> subprocess.CompletedProcess[str]:
            return agent("once")

        assert once().returncode == 0
        filler = disk.path / "filler"
        filler.write_bytes(bytes(disk.free - 60_000))
        fleet.release(fleet.publish_model(version="2.0.0", options=ModelOptions(padding=200_000)))
        full = once()
        assert full.returncode == StorageFullError.exit_code, full.stderr
        assert "Traceback" not in full.stderr
        assert served_version(disk.path) == "1.0.0"
        filler.write_bytes(bytes(filler.stat().st_size + disk.free))
        assert disk.free == 0
        assert once().returncode == StorageFullError.exit_code
        assert "brightness 1.0.0" in agent("status").stdout
        filler.unlink()
        updated = once()
        assert updated.returncode == 0, updated.stderr
        assert served_version(disk.path) == "2.0.0"
        disk.make_read_only()
        denied = once()
        assert denied.returncode == StorageError.exit_code, denied.stderr
        assert "remount the file system read-write" in denied.stderr
        shown = agent("status")
        assert (shown.returncode, shown.stderr) == (0, "")
        assert "brightness 2.0.0" in shown.stdout
        assert "proved itself" in shown.stdout


def test_writes_that_fail_halfway(fleet: Fleet) -> None:
    """RLIMIT_FSIZE: the check of free space passes, and the write itself does not."""
    fleet.release(fleet.publish_model(version="2.0.0", options=ModelOptions(padding=1 << 20)))
    device, config = fleet.device(), fleet.config()

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 19, 1 << 19))

    result = subprocess.run(
        [EDGECTL, "agent", "once", "--config", str(device)],
        preexec_fn=limit,
        check=False,
        capture_output=True,
        text=True,
    )
    assert result.returncode == StorageFullError.exit_code, result.stderr
    assert "Traceback" not in result.stderr
    assert status(config)["slot"]["models"][0]["version"] == "1.0.0"
    assert not list((config.state / "blobs" / "sha256").glob("*.partial"))
    assert poll_once(config, Event()).result == "updated"
