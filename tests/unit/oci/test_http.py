from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from edgectl.errors import IntegrityError
from edgectl.oci import http
from edgectl.oci.access import Access
from tests.support.registry import Registry
from tests.unit.oci.conformance import StoreConformance, push_artifact

if TYPE_CHECKING:
    from collections.abc import Iterator

    from edgectl.oci.store import Repository, Store


class TestWithReferrersApi(StoreConformance):
    @pytest.fixture
    def store(self, registry: Registry) -> Store:
        return registry.store("edge")


class TestWithFallbackTagAndTokens(StoreConformance):
    @pytest.fixture
    def store(self) -> Iterator[Store]:
        with Registry(referrers_api=False, credentials=("ann", "secret")) as registry:
            access = Access(insecure=True, username="ann", password="secret")
            yield registry.store("edge", access)

    def test_tags_are_sorted(self, repository: Repository) -> None:
        pushed = push_artifact(repository, b"one", tag="b")
        repository.tag(pushed, "a")
        assert repository.tags() == {"a": None, "b": None}


@pytest.fixture
def repository(registry: Registry) -> Repository:
    return registry.store().repository("models/digits")


def test_an_idle_poll_is_one_head_once_a_token_is_there() -> None:
    with Registry(credentials=("ann", "secret")) as registry:
        access = Access(insecure=True, username="ann", password="secret")
        repository = registry.store("", access).repository("trust")
        push_artifact(repository, b"metadata", tag="timestamp")
        repository.resolve("timestamp")
        before = len(registry.requests)
        for _ in range(5):
            assert repository.resolve("timestamp") is not None
        polls = registry.requests[before:]
        assert [(r.method, r.path) for r in polls] == 5 * [
            ("HEAD", "/v2/trust/manifests/timestamp")
        ]


def test_connections_are_reused(registry: Registry, repository: Repository) -> None:
    for number in range(5):
        push_artifact(repository, b"%d" % number, tag=f"t{number}")
        assert repository.resolve("absent") is None
    assert registry.connections == 1


def test_lists_without_end_are_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """A registry can always send one page more (endless data)."""
    monkeypatch.setattr(http, "_MAX_PAGES", 5)
    with Registry(page_size=1) as registry:
        repository = registry.store().repository("r")
        pushed = push_artifact(repository, b"one")
        for number in range(6):
            repository.tag(pushed, f"t{number}")
        with pytest.raises(IntegrityError, match="more than 5 pages"):
            repository.tags()


def test_tags_are_paged() -> None:
    with Registry(page_size=3) as registry:
        repository = registry.store().repository("r")
        pushed = push_artifact(repository, b"one")
        for number in range(10):
            repository.tag(pushed, f"t{number}")
        assert list(repository.tags()) == [f"t{number}" for number in range(10)]
