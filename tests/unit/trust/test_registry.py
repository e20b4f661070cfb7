"""Verifying a whole registry directory."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from edgectl.digest import Digest
from edgectl.errors import IntegrityError, NotFoundError, SignatureError
from edgectl.oci import referrers
from edgectl.oci.descriptor import EMPTY_CONFIG, OCI_MANIFEST, Descriptor, Index, Manifest
from edgectl.oci.layout import LayoutStore
from edgectl.trust.keys import generate
from edgectl.trust.registry import verify_layout
from edgectl.trust.repository import TrustRepository
from edgectl.trust.tree import sign_tree
from tests.unit.trust.artifacts import push_model

if TYPE_CHECKING:
    from pathlib import Path

KEY = generate()


@pytest.fixture
def store(tmp_path: Path) -> LayoutStore:
    """A signed model, and release metadata."""
    store = LayoutStore(tmp_path / "registry")
    repository = store.repository("models/digits")
    sign_tree(repository, push_model(repository), KEY)
    TrustRepository(store, tmp_path / "trust", password=lambda: b"x").init()
    return store


def test_what_is_whole_and_signed_is_accepted(store: LayoutStore) -> None:
    summary = verify_layout(store, [KEY.public])
    assert (summary.repositories, summary.tags) == (2, 1)
    assert summary.blobs > 10


def test_every_blob_that_lost_a_byte_is_named(store: LayoutStore, tmp_path: Path) -> None:
    blobs = sorted((tmp_path / "registry").glob("**/blobs/sha256/*"))
    for blob in blobs:
        whole = blob.read_bytes()
        blob.write_bytes(whole[:-1])
        with pytest.raises(IntegrityError, match=blob.name):
            verify_layout(store, [KEY.public])
        blob.write_bytes(whole)
    verify_layout(store, [KEY.public])


def test_an_empty_directory_is_not_a_verified_one(tmp_path: Path) -> None:
    empty = LayoutStore(tmp_path / "empty")
    with pytest.raises(NotFoundError, match="nothing to verify"):
        verify_layout(empty, [KEY.public])
    TrustRepository(empty, tmp_path / "trust", password=lambda: b"x").init()
    with pytest.raises(NotFoundError, match="nothing to verify"):
        verify_layout(empty, [KEY.public])


def test_a_tag_that_nobody_trusted_signed_is_refused(store: LayoutStore) -> None:
    with pytest.raises(SignatureError):
        verify_layout(store, [generate().public])
    with pytest.raises(SignatureError, match="no public key"):
        verify_layout(store, [])
    push_model(store.repository("models/unsigned"))
    with pytest.raises(SignatureError, match="models/unsigned"):
        verify_layout(store, [KEY.public])


def test_a_repository_without_its_marker_is_verified_too(
    store: LayoutStore, tmp_path: Path
) -> None:
    """Devices read it all the same."""
    push_model(store.repository("models/unsigned"))
    (tmp_path / "registry/models/unsigned/oci-layout").unlink()
    with pytest.raises(SignatureError, match="models/unsigned"):
        verify_layout(LayoutStore(tmp_path / "registry"), [KEY.public])


def test_a_repository_behind_a_link_is_verified_too(store: LayoutStore, tmp_path: Path) -> None:
    push_model(LayoutStore(tmp_path / "elsewhere").repository("unsigned"))
    (tmp_path / "registry/more").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(SignatureError, match="more/unsigned"):
        verify_layout(store, [KEY.public])


def test_release_metadata_that_is_not_whole_is_refused(store: LayoutStore, tmp_path: Path) -> None:
    for blob in sorted((tmp_path / "registry/trust/blobs/sha256").iterdir()):
        if blob.name == EMPTY_CONFIG.digest.hex:
            continue  # devices do not read it
        whole = blob.read_bytes()
        blob.unlink()
        with pytest.raises(NotFoundError, match=f"^trust:.* needs the blob sha256:{blob.name}"):
            verify_layout(store, [KEY.public])
        blob.write_bytes(whole)
    assert verify_layout(store, [KEY.public]).tags == 1


def test_release_metadata_with_a_broken_index_is_refused(
    store: LayoutStore, tmp_path: Path
) -> None:
    (tmp_path / "registry/trust/index.json").write_bytes(b"")
    with pytest.raises(IntegrityError, match=r"trust/index\.json"):
        verify_layout(store, [KEY.public])


@pytest.mark.parametrize("name", ["sha256-latest", f"sha256-{'0' * 64}", f"sha256-{'0' * 64}.sig"])
@pytest.mark.parametrize("kind", ["model", "index of it"])
def test_an_artifact_with_the_tag_of_a_list_of_referrers_has_to_be_signed(
    store: LayoutStore, name: str, kind: str
) -> None:
    repository = store.repository("models/digits")
    model = Manifest(EMPTY_CONFIG, (EMPTY_CONFIG,), annotations={"made": "elsewhere"}).to_bytes()
    if kind == "model":
        repository.push_manifest(model, OCI_MANIFEST, tag=name)
    else:
        index = Index((repository.push_manifest(model, OCI_MANIFEST),))
        repository.push_manifest(index.to_bytes(), index.media_type, tag=name)
    with pytest.raises(SignatureError, match="is not signed"):
        verify_layout(store, [KEY.public])


def test_a_listed_referrer_that_is_gone_is_no_fault(store: LayoutStore) -> None:
    repository = store.repository("models/digits")
    gone = Index((Descriptor.of(b"gone", OCI_MANIFEST),))
    tag = referrers.fallback_tag(Digest.of(b"a model that was deleted"))
    repository.push_manifest(gone.to_bytes(), gone.media_type, tag=tag)
    assert verify_layout(store, [KEY.public]).tags == 1
