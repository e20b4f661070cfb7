"""Signs TUF metadata and pushes it, in the order that keeps a release consistent."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from tuf.api.metadata import Metadata, MetaFile, Root, Snapshot, Targets, Timestamp

from edgectl.errors import KeyFileError
from edgectl.trust import metadata
from edgectl.trust.state import State

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime

    from edgectl.oci.descriptor import Descriptor
    from edgectl.oci.store import Repository
    from edgectl.trust.keyring import Keyring
    from edgectl.trust.policy import Expiry

AnySigned = TypeVar("AnySigned", Root, Timestamp, Snapshot, Targets)


@dataclass(frozen=True, slots=True)
class MetadataWriter:
    """Writes new versions of metadata with the keys of a keyring."""

    repository: Repository
    keyring: Keyring
    expiry: Expiry
    now: Callable[[], datetime]

    def sign(self, signed: AnySigned, roots: Sequence[Root]) -> Metadata[AnySigned]:
        """Sign, fresh from now on, so that each of `roots` accepts it.

        Raises KeyFileError if fewer keys are there than have to sign.
        """
        signed.expires = self.now() + self.expiry.of(signed.type)
        signable = Metadata(signed)
        for root in roots:
            role = root.roles[signed.type]
            signers = self.keyring.signers(role.keyids)
            if len(signers) < role.threshold:
                raise KeyFileError(
                    f"{self.keyring.directory} holds {len(signers)} of the {role.threshold} keys "
                    f"that have to sign {signed.type}",
                    hint="run this where the keys are",
                )
            for signer in signers:
                signable.sign(signer, append=True)
        return signable

    def push_root(self, root: Metadata[Root]) -> None:
        """Put a root into the registry."""
        tag = metadata.tag(Root.type, root.signed.version)
        metadata.push(self.repository, tag, root.to_bytes())

    def advance(
        self,
        state: State,
        first: str,
        roots: Sequence[Root],
        before_timestamp: Callable[[], None],
    ) -> State:
        """Write new versions of the role `first` and of the roles that name it, timestamp last.

        `state` gives the versions to go on from and what to write; each of `roots` accepts the
        result. `before_timestamp` is called right before the release takes effect, and may raise.
        Returns the state that is in force then.
        """
        targets, snapshot = deepcopy(state.targets), deepcopy(state.snapshot)
        timestamp = deepcopy(state.timestamp)
        if first == Targets.type:
            targets.version += 1
            data = self._write(targets, roots, metadata.documents(targets))
            snapshot.meta["targets.json"] = MetaFile.from_data(targets.version, data, ["sha256"])
        if first in {Targets.type, Snapshot.type}:
            snapshot.version += 1
            data = self._write(snapshot, roots)
            timestamp.snapshot_meta = MetaFile.from_data(snapshot.version, data, ["sha256"])
        timestamp.version += 1
        data = self.sign(timestamp, roots).to_bytes()
        before_timestamp()
        metadata.push(
            self.repository,
            metadata.TIMESTAMP_TAG,
            data,
            annotations={metadata.TARGETS_TAG: metadata.tag(Targets.type, targets.version)},
        )
        return State(state.root, timestamp, snapshot, targets)

    def _write(
        self, signed: AnySigned, roots: Sequence[Root], documents: Sequence[Descriptor] = ()
    ) -> bytes:
        data = self.sign(signed, roots).to_bytes()
        tag = metadata.tag(signed.type, signed.version)
        metadata.push(self.repository, tag, data, documents=documents)
        return data
