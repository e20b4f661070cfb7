from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from edgectl.errors import IntegrityError, NotFoundError
from edgectl.oci import referrers
from edgectl.oci.descriptor import (
    EMPTY_CONFIG,
    OCI_INDEX,
    OCI_MANIFEST,
    Descriptor,
    Index,
    Manifest,
)
from edgectl.oci.layout import LayoutStore
from edgectl.oci.layout_index import LayoutIndex
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


def test_a_list_that_could_not_be_written_again_is_malformed(tmp_path: Path) -> None:
    """JSON can say half of a surrogate pair; UTF-8 cannot."""
    repository = LayoutStore(tmp_path).repository("models/digits")
    model = push_artifact(repository, b"model", tag="1.0.0")
    item = Descriptor.of(b"a referrer", OCI_MANIFEST, annotations={"a": "HALF"})
    data = Index((item,)).to_bytes().replace(b"HALF", rb"\ud800")
    listed = Descriptor.of(data, OCI_INDEX)
    repository.push_blob(listed, data)
    index = tmp_path / "models/digits/index.json"
    entries = LayoutIndex.from_bytes(index.read_bytes())
    index.write_bytes(
        entries.with_manifest(listed, referrers.fallback_tag(model.digest)).to_bytes()
    )
    signature = Manifest(EMPTY_CONFIG, (), artifact_type=KIND, subject=model).to_bytes()
    with pytest.raises(IntegrityError, match="half of a surrogate pair"):
        repository.push_manifest(signature, OCI_MANIFEST)


@pytest.mark.parametrize(
    ("tag", "listed"),
    [
        (f"sha256-{'a1' * 32}", True),
        ("sha256-latest", False),
        (f"sha256-{'A1' * 32}", False),
        (f"sha256-{'a1' * 32}.sig", False),
        (f"sha256-{'a1' * 32}\n", False),
        (f"sha256-{'a1' * 31}", False),
        (f"sha512-{'a1' * 32}", False),
    ],
)
def test_a_fallback_tag_is_a_whole_digest(tag: str, listed: bool) -> None:
    subject = referrers.subject_of(tag)
    assert (subject is not None) is listed
    assert subject is None or referrers.fallback_tag(subject) == tag
