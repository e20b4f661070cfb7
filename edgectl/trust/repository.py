"""The release repository: what operators write and devices trust.

A TUF repository (specification 1.0) with consistent snapshots in the repository `trust` of a
registry. New files are pushed before the file that names them, `timestamp` last: a run that is
killed leaves the old release in force, and running again completes the new one.
"""

from __future__ import annotations

import logging
from copy import deepcopy
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from tuf.api.metadata import Metadata, Root, Snapshot, TargetFile, Targets, Timestamp

from edgectl.errors import BusyError, IntegrityError, NotFoundError, TrustError
from edgectl.trust import metadata
from edgectl.trust.keyring import Keyring
from edgectl.trust.policy import ROLES, Expiry, KeyPolicy
from edgectl.trust.publishing import exclusively
from edgectl.trust.release import MAX_RELEASE_BYTES, FleetRelease
from edgectl.trust.state import (
    ROOT_FILE,
    Anchor,
    State,
    has_targets,
    newest_root,
    read_state,
    read_targets,
    recovered,
)
from edgectl.trust.writer import MetadataWriter

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from edgectl.oci.store import Store
    from edgectl.trust.keyring import Password


_log = logging.getLogger(__name__)

_GO_ON = "`edgectl trust init` goes on from the newest release that is left"


@dataclass(frozen=True, slots=True)
class RoleStatus:
    """One role of the release repository, for people."""

    role: str
    version: int
    expires: datetime
    threshold: int
    keys: int
    """Keys of the role in the root metadata."""
    keys_here: int
    """Those whose private half is in the trust directory."""


def _utc_now() -> datetime:
    return datetime.now(UTC)


class TrustRepository:
    """Reads and writes releases with the root of trust, and for writing the keys, of a directory.

    Reading needs `root.json` in the directory alone. `password` is called once, when a private
    key is first needed. Every method raises TrustError if the registry's metadata is not what the
    root vouches for, and the registry's errors as they are.
    """

    def __init__(
        self,
        store: Store,
        directory: Path,
        *,
        password: Password | None = None,
        expiry: Expiry | None = None,
        now: Callable[[], datetime] = _utc_now,
    ) -> None:
        self._store = store
        self._repository = store.repository(metadata.REPOSITORY)
        self._directory = directory
        self._anchor = Anchor(directory, store.location)
        self._keyring = Keyring(directory, password)
        self._expiry = expiry or Expiry()
        self._now = now
        self._writer = MetadataWriter(self._repository, self._keyring, self._expiry, now)

    @property
    def root_file(self) -> Path:
        """The root of trust that devices are shipped with."""
        return self._directory / ROOT_FILE

    def init(self, policy: KeyPolicy | None = None) -> None:
        """Make keys and the first, empty release; an interrupted run is completed.

        The directory's root and keys are used if it holds some, so that several registries can
        have one root of trust: the keys that were rotated in one are brought to the others by
        this too. Where the current release is lost or damaged, the newest targets that are genuine
        are released again, and it is not the first. Raises TrustError if the registry has releases
        and all that is to be brought, or targets that no root here vouches for; BusyError if
        somebody is publishing, KeyFileError.
        """
        with exclusively(self._store, self._directory) as still_alone:
            if self._is_there() and self._is_whole():
                lacking = self._lacking()
                if not lacking:
                    raise TrustError(
                        f"{self._store.location} has a release repository already",
                        hint="renew it with `edgectl trust refresh`, or choose another registry",
                    )
                self._bring(lacking, still_alone)
                return
            # Before anything is made or written: that may not be for this registry to have.
            left = self._recovered() if has_targets(self._repository) else None
            if not self._anchor.exists():
                self._make_root(policy or KeyPolicy())
            for root in self._anchor.roots():
                self._writer.push_root(root)
            newest = self._root().signed
            self._advance(left or self._first(newest), Targets.type, (newest,), still_alone)

    def publish(self, fleets: Mapping[str, FleetRelease]) -> int:
        """Release new documents of some fleets; the others stay as they are.

        Returns the version of the targets that hold them; where nothing differs, the present one.
        Raises BusyError if somebody else is publishing, or released one of these fleets since its
        `current` document was read: generations only grow.
        """
        with exclusively(self._store, self._directory) as still_alone:
            state = self._read()
            targets = deepcopy(state.targets)
            for fleet, release in sorted(fleets.items()):
                self._add(targets, fleet, release)
            if targets.targets != state.targets.targets:
                wanted = replace(state, targets=targets)
                state = self._advance(wanted, Targets.type, (state.root,), still_alone)
            return state.targets.version

    def refresh(self) -> None:
        """Sign a new timestamp, and whatever else is past half of its life."""
        with exclusively(self._store, self._directory) as still_alone:
            state = self._read()
            first: str = Timestamp.type
            for signed in (state.snapshot, state.targets):
                if signed.expires - self._now() < self._expiry.of(signed.type) / 2:
                    first = signed.type
            self._advance(state, first, (state.root,), still_alone)

    def rotate(self, role: str) -> None:
        """Replace every key of a role by a new one, in a new root.

        A new root is signed by the old root keys and the new ones. What the role signs is signed
        by its old and its new keys once, so that devices find valid metadata before and after the
        new root appears. Where a stolen key has left the release unreadable, the newest targets
        that are genuine are released again.
        """
        with exclusively(self._store, self._directory) as still_alone:
            lacking = self._lacking()
            old = self._root().signed
            new = deepcopy(old)
            new.version += 1
            for keyid in old.roles[role].keyids:
                new.revoke_key(keyid, role)
            for _ in old.roles[role].keyids:
                new.add_key(self._keyring.generate(role).public_key, role)
            root = self._writer.sign(new, (old, new))
            if role == Root.type and not lacking:
                self._writer.push_root(root)
            else:
                self._bring([*lacking, root], still_alone)
            self._anchor.keep_root(root.to_bytes(), new.version)

    def current(self) -> dict[str, FleetRelease]:
        """The release of every fleet; empty before the first. Raises NotFoundError before init."""
        targets = self._read().targets
        return {
            release.fleet: release
            for release in (self._document(target) for target in targets.targets.values())
        }

    def exists(self) -> bool:
        """Whether the registry holds a release repository: one HEAD, nothing verified.

        Raises TrustError if it held one and that is lost: what comes next is not a first release.
        """
        if self._is_there():
            return True
        if has_targets(self._repository):
            raise TrustError(
                f"{self._store.location} has releases, but not the tag {metadata.TIMESTAMP_TAG}, "
                "which says which of them is current",
                hint=f"{_GO_ON}; who could delete the tag?",
            )
        if self._anchor.seen():
            raise TrustError(
                f"{self._store.location} had releases, and has none now",
                hint="restore the registry; if it was emptied on purpose, `edgectl trust init` "
                "begins anew, with nothing held back",
            )
        return False

    def history(self, fleet: str) -> list[tuple[int, FleetRelease]]:
        """Every release of a fleet with the version of the targets it came with, oldest first.

        Past ones that are gone or damaged are left out.
        """
        newest = self._read().targets
        path = metadata.target_path(fleet)
        roots = [self._root().signed, *(root.signed for root in self._anchor.roots())]
        releases: list[tuple[int, FleetRelease]] = []
        before: TargetFile | None = None
        for version in range(1, newest.version + 1):
            targets = read_targets(self._repository, roots, version)
            target = targets and targets.targets.get(path)
            if target and target != before:
                before = target
                try:
                    releases.append((version, self._document(target)))
                except (NotFoundError, IntegrityError) as error:
                    if target == newest.targets.get(path):
                        raise
                    _log.warning(
                        "the release that came with targets.%d is left out: %s", version, error
                    )
        return releases

    def unlock(self) -> None:
        """Open the keys that a release is signed with, as far as they are here.

        Raises KeyFileError if the password does not open one: before there is anything to undo.
        """
        root = self._root().signed
        for role in ROLES[1:]:
            self._keyring.signers(root.roles[role].keyids)

    def status(self) -> list[RoleStatus]:
        """Versions, expiry and keys of each role."""
        state = self._read()
        return [
            RoleStatus(
                role=signed.type,
                version=signed.version,
                expires=signed.expires,
                threshold=state.root.roles[signed.type].threshold,
                keys=len(state.root.roles[signed.type].keyids),
                keys_here=sum(map(self._keyring.has, state.root.roles[signed.type].keyids)),
            )
            for signed in (state.root, state.targets, state.snapshot, state.timestamp)
        ]

    def _root(self) -> Metadata[Root]:
        return newest_root(self._repository, self._anchor.root())

    def _is_there(self) -> bool:
        return self._repository.resolve(metadata.TIMESTAMP_TAG) is not None

    def _is_whole(self) -> bool:
        """Whether nothing of the current release is gone or damaged, whoever signed it."""
        try:
            self._read_by(self._root().signed)
        except (NotFoundError, IntegrityError):
            return False
        except TrustError:
            return True
        return True

    def _read(self) -> State:
        root = self._root().signed
        try:
            return self._read_by(root)
        except (NotFoundError, IntegrityError) as error:
            if not self.exists():
                raise
            raise type(error)(error.message, hint=_GO_ON) from error
        except TrustError as error:
            lacking = self._lacking()
            if not lacking:
                raise
            raise TrustError(
                f"{self._store.location} has no root.{lacking[-1].signed.version}, and so none of "
                f"the keys that {self._directory} has now",
                hint="if they were rotated with another registry, `edgectl trust init` brings them "
                "to this one; if not, who could delete from it?",
            ) from error

    def _read_by(self, root: Root) -> State:
        state = read_state(self._repository, root)
        if state.timestamp.version < self._anchor.seen():
            raise TrustError(
                f"{self._store.location} was set back: its timestamp has version "
                f"{state.timestamp.version}, after {self._anchor.seen()}",
                hint="restore the registry; devices refuse it as it is",
            )
        return state

    def _lacking(self) -> list[Metadata[Root]]:
        """The newest of the kept roots that the registry has not got, oldest of them first."""
        lacking: list[Metadata[Root]] = []
        for root in self._anchor.roots() if self._anchor.exists() else ():
            if self._repository.resolve(metadata.tag(Root.type, root.signed.version)) is not None:
                break
            lacking.insert(0, root)
        return lacking

    def _bring(self, roots: Sequence[Metadata[Root]], still_alone: Callable[[], None]) -> None:
        """Put new roots into the registry, and before them metadata that old and new ones accept.

        Where the present metadata cannot be read, the newest targets are released again that one
        of the kept roots vouches for.
        """
        kept = [root.signed for root in self._anchor.roots()]
        before = self._before(roots[0].signed.version, kept)
        try:
            state = self._read_by(before)
        except (TrustError, NotFoundError, IntegrityError):
            state = recovered(self._repository, [before, *kept], self._anchor.seen())
        accepting = (before, *(root.signed for root in roots))
        self._advance(state, Targets.type, accepting, still_alone)
        for root in roots:
            self._writer.push_root(root)

    def _before(self, version: int, kept: Sequence[Root]) -> Root:
        """The root before a version, which the registry has."""
        found = next((root for root in kept if root.version == version - 1), None)
        return self._root().signed if found is None else found

    def _recovered(self) -> State:
        """What to go on from, by the roots kept here and those that follow them."""
        kept = [root.signed for root in self._anchor.roots()] if self._anchor.exists() else []
        roots = [self._root().signed, *kept] if kept else []
        return recovered(self._repository, roots, self._anchor.seen())

    def _first(self, root: Root) -> State:
        """What comes before the first release of this registry."""
        state = State(root, Timestamp(), Snapshot(), Targets())
        # Above every version that a device can have seen of these keys in another registry.
        for signed in (state.timestamp, state.snapshot, state.targets):
            signed.version = self._anchor.seen_anywhere()
        return state

    def _make_root(self, policy: KeyPolicy) -> None:
        root = Root()
        for role in ROLES:
            signers = self._keyring.of_role(role)
            while len(signers) < policy.number(role):
                signers.append(self._keyring.generate(role))
            for signer in signers:
                root.add_key(signer.public_key, role)
            root.roles[role].threshold = policy.threshold(role)
        self._anchor.keep_root(self._writer.sign(root, (root,)).to_bytes(), root.version)

    def _advance(
        self, state: State, first: str, roots: Sequence[Root], still_alone: Callable[[], None]
    ) -> State:
        state = self._writer.advance(state, first, roots, still_alone)
        # After it took effect: a run killed in between must not think the registry was set back.
        self._anchor.keep_seen(state.timestamp.version)
        return state

    def _add(self, targets: Targets, fleet: str, release: FleetRelease) -> None:
        """Put a fleet's document into the registry and the targets."""
        path, data = metadata.target_path(fleet), release.to_bytes()
        if release.fleet != fleet or len(data) > MAX_RELEASE_BYTES:
            raise ValueError(f"the release of {release.fleet!r} cannot be that of {fleet!r}")
        target = TargetFile.from_data(path, data, ["sha256"])
        present = targets.targets.get(path)
        if target == present:
            return
        if present is not None and release.generation <= self._document(present).generation:
            raise BusyError(
                f"fleet {fleet!r} was released by somebody else meanwhile",
                hint="plan again and look at what changed",
            )
        self._repository.push_blob(metadata.document(target), data)
        targets.targets[path] = target

    def _document(self, target: TargetFile) -> FleetRelease:
        if target.length > MAX_RELEASE_BYTES:
            raise TrustError(f"{target.path} is over {MAX_RELEASE_BYTES} bytes")
        return FleetRelease.from_bytes(
            b"".join(self._repository.read_blob(metadata.document(target)))
        )
