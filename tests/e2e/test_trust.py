"""Signatures and releases through Debian's docker-registry: no referrers API, nothing deletable."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from edgectl.errors import SignatureError
from edgectl.trust.client import TrustClient
from edgectl.trust.keys import generate
from edgectl.trust.repository import TrustRepository
from edgectl.trust.tree import sign_tree, verify_tree
from tests.support.docker_registry import DockerRegistry
from tests.unit.trust.artifacts import push_model
from tests.unit.trust.releases import release

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from edgectl.oci.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    (tmp_path / "registry").mkdir()
    with DockerRegistry(tmp_path / "registry") as registry:
        yield registry.store()


def test_a_tree_is_signed_and_verified_through_the_fallback_tag(store: Store) -> None:
    key, other = generate(), generate()
    repository = store.repository("models/digits")
    index = push_model(repository)
    with pytest.raises(SignatureError, match="is not signed"):
        verify_tree(repository, index, [key.public])
    sign_tree(repository, index, key)
    assert verify_tree(repository, index, [key.public]).manifests == 3
    with pytest.raises(SignatureError, match="none of the accepted keys"):
        verify_tree(repository, index, [other.public])


def test_releases_reach_a_device_one_after_another(store: Store, tmp_path: Path) -> None:
    trust = TrustRepository(store, tmp_path / "trust", password=lambda: b"pw")
    trust.init()
    device = TrustClient(store, tmp_path / "device", trust.root_file.read_bytes())
    for generation in (1, 2):
        before = device.head()
        trust.publish({"shop": release("shop", generation)})
        assert device.head() != before
        device.refresh()
        assert device.release("shop") == release("shop", generation)
    trust.rotate("timestamp")
    trust.refresh()
    device.refresh()
    assert device.release("shop") == release("shop", 2)
    assert [found.generation for _, found in trust.history("shop")] == [1, 2]
