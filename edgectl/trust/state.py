"""What the release repository says now, verified for those who are going to change it.

Like a device's reading in every rule but one: expiry is no error here, since whoever refreshes
expired metadata has to read it first.
"""

from __future__ import annotations

import logging
import os
import re
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from tuf.api.exceptions import BadVersionNumberError, RepositoryError
from tuf.api.metadata import Metadata, MetaFile, Root, Snapshot, Targets, Timestamp

from edgectl.errors import IntegrityError, NotFoundError, TrustError
from edgectl.oci.filesystem import storage_errors, write_atomic
from edgectl.trust import metadata

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from edgectl.oci.reference import RegistryLocation
    from edgectl.oci.store import Repository

_log = logging.getLogger(__name__)

ROOT_FILE = "root.json"
_SEEN_FILE = "seen-timestamp"
_ROOT_NAME = re.compile(r"(\d+)\.root\.json")

_VERSIONED_TAG = re.compile(r"(targets|snapshot)\.([0-9]{1,9})")
"""What the registry lists is not signed: a version that no release has is not gone on from."""

AnyRole = TypeVar("AnyRole", Timestamp, Snapshot, Targets)


@dataclass(frozen=True, slots=True)
class State:
    """One consistent release: each file names the next, and root vouches for all."""

    root: Root
    timestamp: Timestamp
    snapshot: Snapshot
    targets: Targets


class Anchor:
    """The roots that an operator trusts, kept in the trust directory.

    `root.json` is the newest, the file that devices are shipped with; `N.root.json` are all of
    them, by which older releases stay readable after their keys were rotated. `seen-timestamp` has
    the version of each registry's newest timestamp, so that one that was set back is noticed.
    """

    def __init__(self, directory: Path, location: RegistryLocation) -> None:
        self._directory = directory
        name = str(location)
        if location.is_layout:
            # From here, so that a directory that moves with its registry still knows it.
            path = os.path.relpath(os.path.realpath(location.base), os.path.realpath(directory))
            name = f"oci-layout:{path}"
        # It is one line of a text file, whatever a directory is called.
        self._registry = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in name)

    def exists(self) -> bool:
        """Whether the directory was initialised; raises TrustError if it cannot be read."""
        with self._readable():
            try:
                (self._directory / ROOT_FILE).stat()
            except FileNotFoundError:
                return False
        return True

    def root(self) -> Metadata[Root]:
        """The newest root kept here; raises TrustError if there is none or it is not valid."""
        return self._read_root(self._directory / ROOT_FILE)

    def roots(self) -> list[Metadata[Root]]:
        """Every root kept here, newest first; raises TrustError."""
        with self._readable():
            paths = [p for p in self._directory.iterdir() if _ROOT_NAME.fullmatch(p.name)]
        roots = [self._read_root(path) for path in paths]
        return sorted(roots, key=lambda root: root.signed.version, reverse=True)

    def keep_root(self, data: bytes, version: int) -> None:
        """Trust a root from now on."""
        with storage_errors(f"writing {self._directory / ROOT_FILE}"):
            write_atomic(self._directory / f"{version}.root.json", data)
            write_atomic(self._directory / ROOT_FILE, data)

    def seen(self) -> int:
        """The version of this registry's newest timestamp; 0 if that is not known.

        Raises TrustError if `seen-timestamp` is there and cannot be used.
        """
        return self._versions().get(self._registry, 0)

    def seen_anywhere(self) -> int:
        """The highest version that was signed with these keys, as far as it is known.

        Raises TrustError if `seen-timestamp` is there and cannot be used.
        """
        return max(self._versions().values(), default=0)

    def keep_seen(self, version: int) -> None:
        """Remember the version of a timestamp that is in force."""
        versions = self._versions() | {self._registry: version}
        lines = "".join(f"{versions[name]} {name}\n" for name in sorted(versions))
        with storage_errors(f"writing {self._directory / _SEEN_FILE}"):
            write_atomic(self._directory / _SEEN_FILE, lines.encode())

    def _versions(self) -> dict[str, int]:
        """Registry to version; empty if the file is not there.

        A damaged file is an error: taken for an empty one, it would let a registry that was set
        back pass for a good one, and the next release would write over what it knows of others.
        """
        path = self._directory / _SEEN_FILE
        try:
            with self._readable():
                lines = [line.partition(" ") for line in path.read_text("utf-8").splitlines()]
            if not lines or not all(name for _, _, name in lines):
                raise ValueError("not each line is a version and a registry")
            return {name: int(version) for version, _, name in lines}
        except FileNotFoundError:
            return {}
        except ValueError as error:
            raise TrustError(
                f"{path} is damaged: {error}",
                hint="restore it, or delete it: until the next release, a registry that was set "
                "back goes unnoticed then",
            ) from error

    @contextmanager
    def _readable(self) -> Iterator[None]:
        """Turn what the file system refuses into TrustError, except that a file is not there."""
        try:
            yield
        except FileNotFoundError:
            raise
        except OSError as error:
            raise TrustError(
                f"{error.filename or self._directory} cannot be read: {error.strerror or error}",
                hint=f"is {self._directory} a directory, and may you read it? whoever plans or "
                "releases needs the root of trust in it",
            ) from error

    def _read_root(self, path: Path) -> Metadata[Root]:
        try:
            with self._readable():
                data = path.read_bytes()
            root = Metadata[Root].from_bytes(data)
            if root.signed.type != Root.type:
                raise ValueError(f"it is the metadata of {root.signed.type}")
            root.signed.verify_delegate(Root.type, root.signed_bytes, root.signatures)
        except FileNotFoundError as error:
            raise TrustError(
                f"{path.parent} holds no root of trust ({path.name})",
                hint=self._copy_hint()
                or "make one with `edgectl trust init`, or name the right directory",
            ) from error
        except (ValueError, RepositoryError) as error:
            raise TrustError(
                f"{path} is not a valid TUF root: {error}",
                hint=self._copy_hint() or "restore it from a backup, or from a device",
            ) from error
        return root

    def _copy_hint(self) -> str | None:
        """What to do about a `root.json` that is lost, while the file that it copies is there."""
        names = [
            p.name for p in self._directory.glob("*.root.json") if _ROOT_NAME.fullmatch(p.name)
        ]
        if not names:
            return None
        newest = max(names, key=lambda name: int(name.partition(".")[0]))
        return f"{ROOT_FILE} is a copy of {newest} in the same directory: copy it again"


def newest_root(repository: Repository, trusted: Metadata[Root]) -> Metadata[Root]:
    """Follow the chain of roots in the registry from one that is trusted (TUF 5.3).

    Raises TrustError if a newer root is not signed by the one before it, IntegrityError if what
    the registry has under its tag is none.
    """
    while True:
        version = trusted.signed.version + 1
        try:
            data = metadata.read(repository, metadata.tag(Root.type, version), Root.type)
        except NotFoundError:
            return trusted
        except IntegrityError as error:
            raise IntegrityError(
                f"root.{version} cannot be read: {error.message}",
                hint=f"if nobody rotated keys, delete the tag root.{version}; else restore it. Who "
                "could write to the registry?",
            ) from error
        with metadata.tuf_errors():
            newer = Metadata[Root].from_bytes(data)
            if newer.signed.version != version:
                raise BadVersionNumberError(f"root.{version} has version {newer.signed.version}")
            trusted.signed.verify_delegate(Root.type, newer.signed_bytes, newer.signatures)
            newer.signed.verify_delegate(Root.type, newer.signed_bytes, newer.signatures)
        trusted = newer


def read_state(repository: Repository, root: Root) -> State:
    """Read and verify the current release.

    Raises NotFoundError if there is none or a part of it is gone, IntegrityError if a part is
    damaged, TrustError.
    """
    try:
        data = metadata.read(repository, metadata.TIMESTAMP_TAG, Timestamp.type)
    except NotFoundError as error:
        raise NotFoundError(
            f"the registry has no release repository yet: {error.message}",
            hint="make one with `edgectl trust init`; is it the right registry?",
        ) from error
    timestamp = _verified(Timestamp, data, root)
    snapshot = _named(repository, root, Snapshot, timestamp.snapshot_meta)
    targets = _named(repository, root, Targets, snapshot.meta["targets.json"])
    return State(root, timestamp, snapshot, targets)


def recovered(repository: Repository, roots: Sequence[Root], seen: int) -> State:
    """A state to go on from where the current one cannot be read, as after a stolen key was used.

    The newest targets that one of `roots` vouches for and that are whole; the versions of the rest
    only so high that nothing genuine was higher. Raises TrustError if no targets can be read
    either.
    """
    versions = _listed(repository)
    for version in sorted(versions[Targets.type], reverse=True):
        targets = read_targets(repository, roots, version)
        if targets is not None and targets.version == version:
            if version < max(versions[Targets.type]):
                _log.warning("going on from targets.%d: none newer is whole and genuine", version)
            snapshot = max(versions[Snapshot.type], default=version)
            return State(
                roots[0],
                Timestamp(version=max(seen, snapshot)),
                Snapshot(version=snapshot),
                targets,
            )
    raise TrustError(
        f"{repository.name} holds no release that the trust directory's keys vouch for",
        hint="is this the trust directory of that registry? to begin anew, with nothing released "
        f"and nothing held back, delete the repository {repository.name} first",
    )


def has_targets(repository: Repository) -> bool:
    """Whether the registry lists any targets: what is left of a release, genuine or not."""
    return bool(_listed(repository)[Targets.type])


def _listed(repository: Repository) -> dict[str, list[int]]:
    """Role to the versions that the registry lists of it."""
    versions: dict[str, list[int]] = {Targets.type: [], Snapshot.type: []}
    for name in repository.tags():
        match = _VERSIONED_TAG.fullmatch(name)
        if match:
            versions[match[1]].append(int(match[2]))
    return versions


def read_targets(repository: Repository, roots: Sequence[Root], version: int) -> Targets | None:
    """One version of the targets, if it is there, whole, and any of `roots` vouches for it."""
    tag = metadata.tag(Targets.type, version)
    try:
        data = metadata.read(repository, tag, Targets.type)
    except NotFoundError:
        return None
    except (IntegrityError, TrustError) as error:
        _log.warning("%s is left out: %s", tag, error.message)
        return None
    for root in roots:
        try:
            targets = Metadata[Targets].from_bytes(data)
            root.verify_delegate(Targets.type, targets.signed_bytes, targets.signatures)
        except RepositoryError:
            continue
        return targets.signed
    return None


def _named(repository: Repository, root: Root, role: type[AnyRole], meta: MetaFile) -> AnyRole:
    """Read the metadata file that another one names by version and hash."""
    data = metadata.read(repository, metadata.tag(role.type, meta.version), role.type)
    with metadata.tuf_errors():
        meta.verify_length_and_hashes(data)
    signed = _verified(role, data, root)
    if signed.version != meta.version:
        raise TrustError(f"{role.type}.{meta.version} has version {signed.version}")
    return signed


def _verified(role: type[AnyRole], data: bytes, root: Root) -> AnyRole:
    with metadata.tuf_errors():
        parsed = Metadata[AnyRole].from_bytes(data)
        root.verify_delegate(role.type, parsed.signed_bytes, parsed.signatures)
    signed = parsed.signed
    if not isinstance(signed, role):
        raise TrustError(f"metadata of {role.type} is of another role: {signed.type}")
    return signed
