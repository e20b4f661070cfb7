"""Attacks on releases that a device must survive, by an attacker who can write the registry."""

from __future__ import annotations

import json
from copy import deepcopy
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import Metadata, MetaFile, Root, Snapshot, Targets

from edgectl.digest import Digest, canonical_json
from edgectl.errors import (
    ExpiredTrustError,
    IntegrityError,
    NotFoundError,
    TrustError,
)
from edgectl.oci.descriptor import (
    EMPTY_CONFIG,
    OCI_MANIFEST,
    Descriptor,
    Manifest,
)
from edgectl.trust import metadata
from edgectl.trust.client import TrustClient
from edgectl.trust.repository import TrustRepository
from tests.support.faults import Changed, Endless
from tests.support.registry import Registry
from tests.unit.trust.conftest import PASSWORD
from tests.unit.trust.releases import release

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from edgectl.oci.store import Store
from tests.unit.trust.attacker import Attacker, release_targets

YEAR = datetime.now(UTC) + timedelta(days=365)


@pytest.fixture
def attacker(store: Store, directory: Path) -> Attacker:
    return Attacker(store, directory)


# Row 1: unsigned and wrongly signed.


def test_metadata_signed_by_other_keys_is_refused(
    trust: TrustRepository, client: TrustClient, attacker: Attacker
) -> None:
    trust.publish({"shop": release("shop", 1)})
    client.refresh()
    forged = attacker.timestamp()
    forged.signed.version += 1
    attacker.put("timestamp", attacker.sign(forged, CryptoSigner.generate_ecdsa()))
    with pytest.raises(TrustError, match="timestamp was signed by 0/1 keys") as caught:
        client.refresh()
    assert not caught.value.expired
    assert client.release("shop") == release("shop", 1)


def test_unsigned_metadata_is_refused(
    trust: TrustRepository, client: TrustClient, attacker: Attacker
) -> None:
    unsigned = attacker.timestamp()
    unsigned.signatures.clear()
    attacker.put("timestamp", unsigned.to_bytes())
    with pytest.raises(TrustError, match="0/1 keys"):
        client.refresh()


def test_a_role_cannot_sign_for_another(
    trust: TrustRepository, client: TrustClient, attacker: Attacker
) -> None:
    """A stolen timestamp key does not make releases."""
    (stolen,) = attacker.keyring.of_role("timestamp")
    timestamp = attacker.timestamp()
    version = timestamp.signed.snapshot_meta.version
    snapshot = Metadata[Snapshot].from_bytes(attacker.read(f"snapshot.{version}"))
    snapshot.signed.version += 1
    data = attacker.sign(snapshot, stolen)
    attacker.put(f"snapshot.{version + 1}", data)
    timestamp.signed.version += 1
    timestamp.signed.snapshot_meta = MetaFile.from_data(version + 1, data, ["sha256"])
    attacker.put("timestamp", attacker.sign(timestamp, stolen))
    with pytest.raises(TrustError, match="snapshot was signed by 0/1 keys"):
        client.refresh()


# Row 2: something swapped between check and pull.


def test_a_document_swapped_behind_its_hash_is_refused(directory: Path, tmp_path: Path) -> None:
    with Registry() as registry:
        store = registry.store("edge")
        trust = TrustRepository(store, directory, password=lambda: PASSWORD)
        trust.init()
        trust.publish({"shop": release("shop", 1)})
        client = TrustClient(store, tmp_path / "device", trust.root_file.read_bytes())
        client.refresh()
        digest = Digest.of(release("shop", 1).to_bytes())
        registry.inject(Changed(5), method="GET", path=f"/blobs/{digest}")
        with pytest.raises(IntegrityError, match=digest.hex):
            client.release("shop")
        registry.heal()
        assert client.release("shop") == release("shop", 1)


# Row 3: rollback.


def test_an_older_release_replayed_is_refused(
    trust: TrustRepository, client: TrustClient, attacker: Attacker
) -> None:
    trust.publish({"shop": release("shop", 1)})
    old = attacker.read("timestamp")
    trust.publish({"shop": release("shop", 2)})
    client.refresh()
    attacker.put("timestamp", old)
    with pytest.raises(TrustError, match="must be >="):
        client.refresh()
    assert client.release("shop") == release("shop", 2)


def test_going_back_by_a_newer_signed_release_is_followed(
    trust: TrustRepository, client: TrustClient
) -> None:
    trust.publish({"shop": release("shop", 1, "1.0.0")})
    trust.publish({"shop": release("shop", 2, "1.1.0")})
    client.refresh()
    trust.publish({"shop": release("shop", 3, "1.0.0")})
    client.refresh()
    assert client.release("shop") == release("shop", 3, "1.0.0")


def test_a_fleet_document_of_another_fleet_is_refused(
    store: Store, trust: TrustRepository, client: TrustClient, attacker: Attacker
) -> None:
    """Even the operator's own targets key cannot give one fleet another's document."""
    version = trust.publish({"shop": release("shop", 1), "lab": release("lab", 1)})
    targets = Metadata[Targets].from_bytes(attacker.read(f"targets.{version}"))
    swapped = deepcopy(targets.signed.targets["fleets/lab.json"])
    swapped.path = "fleets/shop.json"
    targets.signed.targets["fleets/shop.json"] = swapped
    release_targets(attacker, targets)
    with pytest.raises(TrustError, match="is one of 'lab'"):
        client.release("shop")


# Row 4: freeze.


def test_frozen_metadata_is_reported_as_expired(
    store: Store, directory: Path, tmp_path: Path
) -> None:
    past = datetime.now(UTC) - timedelta(days=2)
    trust = TrustRepository(store, directory, password=lambda: PASSWORD, now=lambda: past)
    trust.init()
    client = TrustClient(store, tmp_path / "device", trust.root_file.read_bytes())
    with pytest.raises(ExpiredTrustError, match="too old") as caught:
        client.refresh()
    assert caught.value.expired
    assert caught.value.code == "trust-expired"
    expires = client.expires()
    assert expires is None or expires < datetime.now(UTC)


@pytest.mark.parametrize("days", [8, 91, 366])
def test_whichever_role_expired_it_is_refused(
    days: int, store: Store, directory: Path, tmp_path: Path
) -> None:
    """After 8 days the snapshot, after 91 the targets, after 366 the root is too old too."""
    past = datetime.now(UTC) - timedelta(days=days)
    trust = TrustRepository(store, directory, password=lambda: PASSWORD, now=lambda: past)
    trust.init()
    attacker = Attacker(store, directory)
    timestamp = attacker.timestamp()
    timestamp.signed.expires = YEAR
    timestamp.signed.version += 1
    attacker.put("timestamp", attacker.sign(timestamp))
    client = TrustClient(store, tmp_path / "device", trust.root_file.read_bytes())
    with pytest.raises(ExpiredTrustError):
        client.refresh()


# Row 5: fast-forward.


def test_fast_forwarded_versions_are_recovered_by_key_rotation(
    trust: TrustRepository, client: TrustClient, attacker: Attacker
) -> None:
    trust.publish({"shop": release("shop", 1)})
    genuine = attacker.read("timestamp")
    forward = attacker.timestamp()
    forward.signed.version = 1 << 40
    attacker.put("timestamp", attacker.sign(forward))
    client.refresh()
    attacker.put("timestamp", genuine)

    trust.publish({"shop": release("shop", 2)})
    with pytest.raises(TrustError, match="must be >="):
        client.refresh()

    trust.rotate("timestamp")
    client.refresh()
    assert client.release("shop") == release("shop", 2)
    trust.publish({"shop": release("shop", 3)})
    client.refresh()
    assert client.release("shop") == release("shop", 3)


def test_a_release_made_unreadable_with_a_stolen_key_is_recovered(
    trust: TrustRepository, client: TrustClient, attacker: Attacker
) -> None:
    trust.publish({"shop": release("shop", 1)})
    client.refresh()
    broken = attacker.timestamp()
    broken.signed.version = 1 << 40
    broken.signed.snapshot_meta = MetaFile(1 << 40, 10, {"sha256": "0" * 64})
    attacker.put("timestamp", attacker.sign(broken))
    with pytest.raises(NotFoundError):
        trust.current()
    # Tags are not signed: none may crash the recovery, or lift versions out of sight.
    for number in ("9" * 120, "9" * 15):
        attacker.put(f"snapshot.{number}", attacker.sign(broken))

    trust.rotate("timestamp")

    assert {role.version < 1000 for role in trust.status()} == {True}
    assert trust.current() == {"shop": release("shop", 1)}
    client.refresh()
    assert client.release("shop") == release("shop", 1)


# Row 6: mix and match.


def test_files_of_two_releases_are_refused(
    trust: TrustRepository, client: TrustClient, attacker: Attacker
) -> None:
    first = trust.publish({"shop": release("shop", 1)})
    second = trust.publish({"shop": release("shop", 2)})
    attacker.put(f"targets.{second}", attacker.read(f"targets.{first}"))
    with pytest.raises(TrustError, match="refused"):
        client.refresh()


def test_a_snapshot_of_another_release_is_refused(
    trust: TrustRepository, client: TrustClient, attacker: Attacker
) -> None:
    trust.publish({"shop": release("shop", 1)})
    old = attacker.timestamp().signed.snapshot_meta.version
    trust.publish({"shop": release("shop", 2)})
    new = attacker.timestamp().signed.snapshot_meta.version
    attacker.put(f"snapshot.{new}", attacker.read(f"snapshot.{old}"))
    with pytest.raises(TrustError, match="refused"):
        client.refresh()


# Row 8: endless data.


def test_endless_data_is_left_at_its_declared_size(directory: Path, tmp_path: Path) -> None:
    with Registry() as registry:
        store = registry.store("edge")
        trust = TrustRepository(store, directory, password=lambda: PASSWORD)
        trust.init()
        client = TrustClient(store, tmp_path / "device", trust.root_file.read_bytes())
        endless = Endless()
        registry.inject(endless, method="GET", path="/blobs/")
        client.refresh()
        assert 0 < endless.sent[0] < 16 << 20


def test_metadata_that_declares_too_much_is_not_read_whole(
    trust: TrustRepository, client: TrustClient, attacker: Attacker
) -> None:
    padded = attacker.read("timestamp") + b" " * 100_000
    layer = Descriptor.of(padded, metadata.METADATA_TYPE)
    attacker.repository.push_blob(layer, padded)
    manifest = Manifest(EMPTY_CONFIG, (layer,), artifact_type=metadata.ARTIFACT_TYPE)
    attacker.repository.push_manifest(manifest.to_bytes(), OCI_MANIFEST, tag="timestamp")
    with pytest.raises(TrustError, match="exceeding the maximum allowed length"):
        client.refresh()
    with pytest.raises(TrustError, match="declares"):
        trust.current()


# Row 12: under threshold, duplicated keys and signatures.


def test_a_root_under_its_threshold_is_refused(
    trust: TrustRepository, client: TrustClient, attacker: Attacker
) -> None:
    root = Metadata[Root].from_bytes(attacker.read("root.1"))
    root.signed.version = 2
    (stolen, *_) = attacker.keyring.of_role("root")
    attacker.put("root.2", attacker.sign(root, stolen))
    with pytest.raises(TrustError, match="root was signed by 1/2 keys"):
        client.refresh()


def test_one_signature_given_twice_counts_once(
    trust: TrustRepository, client: TrustClient, attacker: Attacker
) -> None:
    root = Metadata[Root].from_bytes(attacker.read("root.1"))
    root.signed.version = 2
    (stolen, *_) = attacker.keyring.of_role("root")
    value = json.loads(attacker.sign(root, stolen))
    value["signatures"] *= 2
    attacker.put("root.2", canonical_json(value))
    with pytest.raises(TrustError):
        client.refresh()


def test_one_key_listed_twice_is_refused(
    trust: TrustRepository, client: TrustClient, attacker: Attacker
) -> None:
    root = Metadata[Root].from_bytes(attacker.read("root.1"))
    root.signed.version = 2
    value = json.loads(attacker.sign(root))
    role = value["signed"]["roles"]["timestamp"]
    role["keyids"] *= 2
    attacker.put("root.2", canonical_json(value))
    with pytest.raises(TrustError):
        client.refresh()


def test_a_root_that_skips_the_old_keys_is_refused(
    trust: TrustRepository, client: TrustClient, attacker: Attacker
) -> None:
    root = Metadata[Root].from_bytes(attacker.read("root.1"))
    root.signed.version = 2
    for keyid in list(root.signed.roles["root"].keyids):
        root.signed.revoke_key(keyid, "root")
    signers = [CryptoSigner.generate_ecdsa() for _ in range(2)]
    for signer in signers:
        root.signed.add_key(signer.public_key, "root")
    attacker.put("root.2", attacker.sign(root, *signers))
    with pytest.raises(TrustError, match="root was signed by 0/2 keys"):
        client.refresh()
    with pytest.raises(TrustError, match="root was signed by 0/2 keys"):
        trust.current()


def _nothing(_: dict[str, Any]) -> None:
    """Change nothing."""


@pytest.mark.parametrize(
    ("change", "accepted"),
    [
        (_nothing, True),
        (lambda value: value["signed"].update(version="2"), False),
        (lambda value: value["signed"].update(spec_version="9.0"), False),
        (lambda value: value["signed"].update(_type="targets"), False),
        (lambda value: value["signed"].pop("meta"), False),
        (lambda value: value["signatures"].append(value["signatures"][0]), False),
        (lambda value: value["signatures"].clear(), False),
    ],
)
def test_hostile_shapes_are_refused(
    change: Callable[[dict[str, Any]], None],
    accepted: bool,
    trust: TrustRepository,
    client: TrustClient,
    attacker: Attacker,
) -> None:
    value = json.loads(attacker.read("timestamp"))
    change(value)
    attacker.put("timestamp", canonical_json(value))
    if accepted:
        client.refresh()
        return
    with pytest.raises(TrustError):
        client.refresh()
