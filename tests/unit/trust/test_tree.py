"""Whole artifacts: every manifest signed, every byte read."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from edgectl.digest import Digest
from edgectl.errors import IntegrityError, NotFoundError, SignatureError
from edgectl.oci.descriptor import OCI_INDEX, Descriptor, Index, Manifest, parse_manifest
from edgectl.oci.layout import LayoutStore
from edgectl.oci.layout_index import LayoutIndex
from edgectl.trust import signature
from edgectl.trust.attestation import attest
from edgectl.trust.tree import sign_tree, verify_tree
from tests.support.faults import Changed, Status
from tests.support.registry import Registry
from tests.unit.trust.artifacts import push_layer, push_manifest, push_model

if TYPE_CHECKING:
    from pathlib import Path

    from edgectl.oci.store import Repository, Store
    from edgectl.trust.keys import PrivateKey

SLSA = "https://slsa.dev/provenance/v1"


def test_a_signed_tree_verifies_and_is_counted(store: Store, key: PrivateKey) -> None:
    repository = store.repository("models/digits")
    index = push_model(repository)
    assert len(sign_tree(repository, index, key)) == 3
    attest(repository, index, SLSA, {"builder": "x"}, key)

    summary = verify_tree(repository, index, [key.public])

    assert summary.manifests == 3
    # Two weights, the shared layer, the empty config, three signatures, one attestation.
    assert summary.blobs == 8
    assert summary.bundles == 4
    assert summary.bytes > 3000


def test_one_unsigned_manifest_below_a_signed_index_is_refused(
    store: Store, key: PrivateKey
) -> None:
    repository = store.repository("models/digits")
    index = push_model(repository)
    signature.sign(repository, index, key)
    with pytest.raises(SignatureError, match="is not signed"):
        verify_tree(repository, index, [key.public])


def test_an_unsigned_index_over_signed_manifests_is_refused(store: Store, key: PrivateKey) -> None:
    repository = store.repository("models/digits")
    index = push_model(repository)
    *manifests, _ = sign_tree(repository, index, key)
    other = repository.push_manifest(Index(tuple(manifests[:1])).to_bytes(), OCI_INDEX)
    assert verify_tree(repository, manifests[0], [key.public]).manifests == 1
    with pytest.raises(SignatureError, match=other.digest.hex):
        verify_tree(repository, other, [key.public])


def test_no_key_verifies_nothing(store: Store, key: PrivateKey) -> None:
    repository = store.repository("models/digits")
    index = push_model(repository)
    sign_tree(repository, index, key)
    with pytest.raises(SignatureError, match="no public key"):
        verify_tree(repository, index, [])


def test_signing_twice_changes_nothing(store: Store, key: PrivateKey) -> None:
    repository = store.repository("models/digits")
    index = push_model(repository)
    sign_tree(repository, index, key)
    before = verify_tree(repository, index, [key.public])
    sign_tree(repository, index, key)
    assert verify_tree(repository, index, [key.public]) == before


def test_a_byte_gone_from_any_blob_is_refused_by_name(
    tmp_path: Path, key: PrivateKey, other_key: PrivateKey
) -> None:
    repository = LayoutStore(tmp_path).repository("models/digits")
    index = push_model(repository)
    sign_tree(repository, index, key)
    attest(repository, index, SLSA, {"builder": "x"}, key)
    attest(repository, index, SLSA, {"builder": "y"}, other_key)
    blobs = _live_blobs(tmp_path / "models/digits")

    for blob in blobs:
        good = blob.read_bytes()
        middle = len(good) // 2
        for damaged in (good[:-1], good[1:], good[:middle] + good[middle + 1 :]):
            blob.write_bytes(damaged)
            with pytest.raises((IntegrityError, NotFoundError), match=blob.name):
                verify_tree(_again(tmp_path), index, [key.public])
        blob.unlink()
        with pytest.raises((IntegrityError, NotFoundError), match=blob.name):
            verify_tree(_again(tmp_path), index, [key.public])
        blob.write_bytes(good)

    # Index, two manifests, four blobs; five bundles with their manifests; three referrer lists.
    assert len(blobs) == 7 + 10 + 3
    assert verify_tree(_again(tmp_path), index, [key.public]).manifests == 3


def _again(path: Path) -> Repository:
    """The repository as a process sees it that did not write it."""
    return LayoutStore(path).repository("models/digits")


def _live_blobs(layout: Path) -> list[Path]:
    """Every blob that `index.json` reaches."""
    listed = LayoutIndex.from_bytes((layout / "index.json").read_bytes())
    digests = set(listed.manifests)
    for digest in listed.manifests:
        manifest = parse_manifest((layout / "blobs/sha256" / digest.hex).read_bytes())
        if isinstance(manifest, Manifest):
            digests |= {blob.digest for blob in manifest.blobs}
    return [layout / "blobs/sha256" / digest.hex for digest in sorted(digests)]


def test_a_changed_bit_on_the_way_is_refused_by_name_and_title(key: PrivateKey) -> None:
    with Registry() as registry:
        repository = registry.store().repository("models/digits")
        index = push_model(repository)
        sign_tree(repository, index, key)
        digest = Digest.of(b"weights for a nuc")
        registry.inject(Changed(3), method="GET", path=f"/blobs/{digest}")
        with pytest.raises(IntegrityError, match=re.escape(f"model.onnx {digest} in sha256:")):
            verify_tree(repository, index, [key.public])


def test_a_title_that_anybody_wrote_does_not_reach_the_terminal(key: PrivateKey) -> None:
    with Registry() as registry:
        repository = registry.store().repository("models/digits")
        index = push_model(repository)
        sign_tree(repository, index, key)
        titled = replace(index, annotations={"org.opencontainers.image.title": "\x1b[2J"})
        registry.inject(Changed(3), method="GET", path=f"/manifests/{index.digest}")
        with pytest.raises(IntegrityError) as caught:
            verify_tree(repository, titled, [key.public])
        assert str(caught.value).isprintable()


def test_a_withheld_layer_is_named(key: PrivateKey) -> None:
    with Registry() as registry:
        repository = registry.store().repository("models/digits")
        index = push_model(repository)
        sign_tree(repository, index, key)
        digest = Digest.of(b"weights for a nuc")
        registry.inject(Status(404), path=f"/blobs/{digest}")
        with pytest.raises(NotFoundError, match=re.escape(f"model.onnx {digest}")):
            verify_tree(repository, index, [key.public])


def test_a_descriptor_that_lies_about_the_size_is_refused(store: Store, key: PrivateKey) -> None:
    repository = store.repository("models/digits")
    manifest = push_manifest(repository, push_layer(repository, b"weights", "model.onnx"))
    lying = Descriptor(manifest.media_type, manifest.digest, manifest.size + 1)
    sign_tree(repository, manifest, key)
    with pytest.raises(IntegrityError, match=manifest.digest.hex):
        verify_tree(repository, lying, [key.public])


def test_indexes_within_indexes_end(store: Store, key: PrivateKey) -> None:
    repository = store.repository("models/digits")
    index = push_model(repository)
    for _ in range(6):
        data = Index((index,)).to_bytes()
        index = repository.push_manifest(data, OCI_INDEX)
    with pytest.raises(IntegrityError, match="within more than 4"):
        sign_tree(repository, index, key)
