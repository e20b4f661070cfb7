"""Verify a whole registry directory: every blob, and a signature on every artifact."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgectl.errors import NotFoundError
from edgectl.oci import referrers
from edgectl.trust.metadata import REPOSITORY as RELEASES
from edgectl.trust.tree import verify_tree

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgectl.oci.layout import LayoutStore
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

    Release metadata is signed by TUF's roles, not by `keys`: of it only the bytes are checked here
    (`edgectl trust status` and every device verify the rest). Raises as `verify_tree` does, and
    NotFoundError if there is no such artifact at all: an empty directory is not a verified one.
    """
    repositories = tags = blobs = size = 0
    for repository in store.repositories():
        repositories += 1
        sizes = list(repository.check_blobs())
        blobs, size = blobs + len(sizes), size + sum(sizes)
        if repository.name == RELEASES:
            continue
        for tag in repository.tags():
            descriptor = repository.resolve(tag)
            if descriptor is not None and not referrers.is_fallback_tag(tag):
                verify_tree(repository, descriptor, keys)
                tags += 1
    if tags == 0:
        raise NotFoundError(
            f"{store.location} holds nothing that is signed: there was nothing to verify",
            hint="is it the registry's directory, and whole?",
        )
    return RegistrySummary(repositories, tags, blobs, size)
