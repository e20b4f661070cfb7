from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from edgectl.errors import NotFoundError
from edgectl.oci import referrers
from edgectl.oci.descriptor import EMPTY_CONFIG, OCI_MANIFEST, Descriptor, Index, Manifest
from edgectl.oci.layout import LayoutStore
from tests.support.registry import Registry
from tests.unit.oci.conformance import push_artifact

if TYPE_CHECKING:
    from pathlib import Path

KIND = "application/vnd.example.kind.v1+json"


def test_a_list_that_lost_its_types_is_read_with_those_of_the_manifests(tmp_path: Path) -> None:
    """What is left of the referrers of a signed model that skopeo 1.9 copied with `--all`."""
    with Registry(referrers_api=False) as registry:
        for store in (LayoutStore(tmp_path), registry.store()):
            repository = store.repository("models/digits")
            model = push_artifact(repository, b"model", tag="1.0.0")
            manifest = Manifest(EMPTY_CONFIG, (), artifact_type=KIND, subject=model).to_bytes()
            signature = repository.push_manifest(manifest, OCI_MANIFEST)
            tag = referrers.fallback_tag(model.digest)
            listed = referrers.listed(repository.read_manifest(tag)[1])
            bare = Index(tuple(replace(item, artifact_type=None) for item in listed))
            repository.push_manifest(bare.to_bytes(), bare.media_type, tag=tag)
            found = repository.referrers(model.digest, KIND)
            assert [item.digest for item in found] == [signature.digest]
            assert repository.referrers(model.digest, "application/other") == []


def test_no_more_than_some_are_read_for_their_type() -> None:
    read: list[str] = []

    def absent(target: str) -> tuple[Descriptor, bytes]:
        read.append(target)
        raise NotFoundError(target)

    listed = [Descriptor.of(b"%d" % number, OCI_MANIFEST) for number in range(1000)]
    assert referrers.of_type(listed, KIND, absent) == []
    assert len(read) == 256
    assert referrers.of_type(listed, None, absent) == listed
    assert len(read) == 256


@pytest.mark.parametrize("kind", [KIND, None])
def test_what_says_its_type_is_not_read(kind: str | None) -> None:
    item = Descriptor.of(b"{}", OCI_MANIFEST, artifact_type=KIND)
    assert referrers.of_type([item], kind) == [item]
