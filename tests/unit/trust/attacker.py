"""Who can write anything to the registry, and has stolen keys."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tuf.api.metadata import Metadata, MetaFile, Snapshot, Targets, Timestamp

from edgectl.trust import metadata
from edgectl.trust.keyring import Keyring
from tests.unit.trust.conftest import PASSWORD

if TYPE_CHECKING:
    from pathlib import Path

    from securesystemslib.signer import CryptoSigner

    from edgectl.oci.store import Repository, Store


class Attacker:
    """Writes anything under any tag, signed with the keys of a trust directory or others."""

    def __init__(self, store: Store, directory: Path) -> None:
        self.repository: Repository = store.repository(metadata.REPOSITORY)
        self.keyring = Keyring(directory, lambda: PASSWORD)

    def read(self, tag: str) -> bytes:
        return metadata.read(self.repository, tag, tag.partition(".")[0])

    def put(self, tag: str, data: bytes) -> None:
        metadata.push(self.repository, tag, data)

    def timestamp(self) -> Metadata[Timestamp]:
        return Metadata[Timestamp].from_bytes(self.read("timestamp"))

    def sign(self, signed: Metadata[Any], *signers: CryptoSigner) -> bytes:
        signed.signatures.clear()
        for signer in signers or self.keyring.of_role(signed.signed.type):
            signed.sign(signer, append=True)
        return signed.to_bytes()


def release_targets(attacker: Attacker, targets: Metadata[Targets]) -> None:
    """Make a consistent release of changed targets, with every online key stolen."""
    timestamp = attacker.timestamp()
    old = timestamp.signed.snapshot_meta.version
    snapshot = Metadata[Snapshot].from_bytes(attacker.read(f"snapshot.{old}"))
    targets.signed.version += 1
    data = attacker.sign(targets)
    documents = metadata.documents(targets.signed)
    tag = f"targets.{targets.signed.version}"
    metadata.push(attacker.repository, tag, data, documents=documents)
    snapshot.signed.version += 1
    snapshot.signed.meta["targets.json"] = MetaFile.from_data(
        targets.signed.version, data, ["sha256"]
    )
    data = attacker.sign(snapshot)
    attacker.put(f"snapshot.{snapshot.signed.version}", data)
    timestamp.signed.version += 1
    timestamp.signed.snapshot_meta = MetaFile.from_data(snapshot.signed.version, data, ["sha256"])
    attacker.put("timestamp", attacker.sign(timestamp))
