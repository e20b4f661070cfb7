"""Verify a whole registry directory: every blob, and a signature on every artifact."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgectl.errors import NotFoundError
from edgectl.oci import referrers
from edgectl.oci.descriptor import Index, parse_manifest
from edgectl.trust import metadata
from edgectl.trust.tree import verify_tree

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgectl.digest import Digest
    from edgectl.oci.descriptor import Descriptor
    from edgectl.oci.layout import LayoutStore
    from edgectl.oci.store import Repository
    from edgectl.trust.keys import PublicKey


@dataclass(frozen=True, slots=True)
class RegistrySummary:
    """What was read and found right."""

    repositories: int
    tags: int
    """Tags whose whole tree is signed; release metadata and lists of referrers are not counted."""
    blobs: int
    """Every blob, referenced or not."""
    bytes: int


def verify_layout(store: LayoutStore, keys: Sequence[PublicKey]) -> RegistrySummary:
    """Hash every blob of every repository, then verify the tree below every tag.

    Release metadata is signed by TUF's roles, not by `keys`: of it only the bytes are checked here,
    and that all of them are there (`edgectl trust status` and every device verify the rest). Raises
    as `verify_tree` does, and NotFoundError if there is no such artifact at all: an empty directory
    is not a verified one.
    """
    repositories = tags = blobs = size = 0
    for repository in store.repositories():
        repositories += 1
        sizes = list(repository.check_blobs())
        blobs, size = blobs + len(sizes), size + sum(sizes)
        for tag in repository.tags():
            descriptor = repository.resolve(tag)
            if descriptor is None or _lists_referrers(repository, tag, descriptor):
                continue
            if repository.name == metadata.REPOSITORY:
                _check_release(repository, tag, descriptor)
            else:
                verify_tree(repository, descriptor, keys)
                tags += 1
    if tags == 0:
        raise NotFoundError(
            f"{store.location} holds nothing that is signed: there was nothing to verify",
            hint="is it the registry's directory, and whole?",
        )
    return RegistrySummary(repositories, tags, blobs, size)


def _check_release(repository: Repository, tag: str, descriptor: Descriptor) -> None:
    """Require a file of release metadata, and the fleet documents beside it, to be there."""
    wanted = [descriptor]
    if repository.has_blob(descriptor.digest):
        artifact = metadata.find(repository, tag)
        wanted = [artifact.metadata, *artifact.documents]
    for blob in wanted:
        if not repository.has_blob(blob.digest):
            raise NotFoundError(
                f"{repository.name}:{tag} needs the blob {blob.digest}, which is not there",
                hint="copy the directory again from where it was made",
            )


def _lists_referrers(repository: Repository, tag: str, descriptor: Descriptor) -> bool:
    """Whether a tag is a fallback tag, and lists nothing but referrers of its manifest.

    Such a list is signed by nobody. Anything else under a name of that form is an artifact.
    """
    subject = referrers.subject_of(tag)
    if subject is None:
        return False
    listed = parse_manifest(repository.read_manifest(str(descriptor.digest))[1])
    return isinstance(listed, Index) and all(
        _refers_to(repository, item, subject) for item in listed.manifests
    )


def _refers_to(repository: Repository, item: Descriptor, subject: Digest) -> bool:
    """Whether a listed manifest says so itself; also if it is gone, when it is nothing."""
    try:
        found = parse_manifest(repository.read_manifest(str(item.digest))[1]).subject
    except NotFoundError:
        return True
    return found is not None and found.digest == subject
