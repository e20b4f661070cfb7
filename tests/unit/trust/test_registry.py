"""Verifying a whole registry directory."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from edgectl.errors import IntegrityError, NotFoundError, SignatureError
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
