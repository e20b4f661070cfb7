"""What every store has to do, whatever it is made of.

A subclass gives the fixture `store`, an empty store, and says in `tags_know_digests` whether
listing tags tells their digests.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from typing import TYPE_CHECKING

import pytest

from edgectl.digest import Digest
from edgectl.errors import IntegrityError, NotFoundError
from edgectl.oci.descriptor import (
    EMPTY_CONFIG,
    OCI_INDEX,
    OCI_MANIFEST,
    Descriptor,
    Index,
    Manifest,
    Platform,
    parse_manifest,
)
from edgectl.oci.referrers import fallback_tag
from edgectl.oci.transfer import copy_tree, pull_blob, walk

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from edgectl.oci.store import Repository, Store

BLOB = bytes(range(256)) * 5000
ABSENT = Digest.of(b"nobody ever pushed this")


def describe(data: bytes, media_type: str = "application/octet-stream") -> Descriptor:
    return Descriptor.of(data, media_type)


def push_artifact(
    repository: Repository,
    content: bytes,
    *,
    tag: str | None = None,
    subject: Descriptor | None = None,
    artifact_type: str = "application/vnd.example.thing",
) -> Descriptor:
    """Push an artifact with one layer."""
    repository.push_blob(EMPTY_CONFIG, b"{}")
    repository.push_blob(describe(content), content)
    manifest = Manifest(
        EMPTY_CONFIG,
        (describe(content),),
        artifact_type=artifact_type,
        subject=subject,
        annotations={"org.example": "one"},
    )
    return repository.push_manifest(manifest.to_bytes(), OCI_MANIFEST, tag=tag)


class StoreConformance:
    tags_know_digests = False

    @pytest.fixture
    def repository(self, store: Store) -> Repository:
        return store.repository("models/digits")

    def test_name_is_below_the_location(self, repository: Repository) -> None:
        assert repository.name == "models/digits"

    def test_an_absent_repository_is_empty(self, repository: Repository) -> None:
        assert repository.resolve("1.0.0") is None
        assert repository.resolve(str(ABSENT)) is None
        assert repository.tags() == {}
        assert repository.referrers(ABSENT) == []
        assert not repository.has_blob(ABSENT)
        with pytest.raises(NotFoundError):
            repository.read_manifest("1.0.0")
        with pytest.raises(NotFoundError):
            list(repository.read_blob(Descriptor("application/x", ABSENT, 23)))
        repository.delete("1.0.0")
        repository.delete(str(ABSENT))
        assert repository.tags() == {}

    @pytest.mark.parametrize("form", ["bytes", "path", "file"])
    def test_blob_round_trip(self, repository: Repository, tmp_path: Path, form: str) -> None:
        path = tmp_path / "blob"
        path.write_bytes(BLOB)
        source = {"bytes": BLOB, "path": path, "file": BytesIO(BLOB)}[form]
        repository.push_blob(describe(BLOB), source)  # type: ignore[arg-type]
        assert repository.has_blob(describe(BLOB).digest)
        assert b"".join(repository.read_blob(describe(BLOB))) == BLOB

    def test_pushing_a_blob_twice_is_harmless(self, repository: Repository) -> None:
        repository.push_blob(describe(BLOB), BLOB)
        repository.push_blob(describe(BLOB), BLOB)
        assert b"".join(repository.read_blob(describe(BLOB))) == BLOB

    def test_empty_blob(self, repository: Repository) -> None:
        repository.push_blob(describe(b""), b"")
        assert list(repository.read_blob(describe(b""))) == []

    @pytest.mark.parametrize("offset", [1, 4096, len(BLOB) - 1, len(BLOB)])
    def test_reading_from_an_offset(self, repository: Repository, offset: int) -> None:
        repository.push_blob(describe(BLOB), BLOB)
        assert b"".join(repository.read_blob(describe(BLOB), offset=offset)) == BLOB[offset:]

    @pytest.mark.parametrize("content", [b"", b"short", BLOB + b"!", b"!" + BLOB[1:]])
    def test_a_push_of_other_content_is_refused(
        self, repository: Repository, content: bytes
    ) -> None:
        with pytest.raises(IntegrityError, match=str(describe(BLOB).digest)):
            repository.push_blob(describe(BLOB), content)
        assert not repository.has_blob(describe(BLOB).digest)

    @pytest.mark.parametrize("size", [len(BLOB) - 1, len(BLOB) + 1])
    def test_a_blob_of_another_size_is_refused(self, repository: Repository, size: int) -> None:
        repository.push_blob(describe(BLOB), BLOB)
        wrong = Descriptor("application/octet-stream", describe(BLOB).digest, size)
        with pytest.raises(IntegrityError, match=str(wrong.digest)):
            list(repository.read_blob(wrong))

    def test_manifest_round_trip(self, repository: Repository) -> None:
        pushed = push_artifact(repository, b"weights", tag="1.0.0")
        assert repository.resolve("1.0.0") == pushed
        assert repository.resolve(str(pushed.digest)) == pushed
        descriptor, data = repository.read_manifest("1.0.0")
        assert descriptor == pushed
        assert Digest.of(data) == pushed.digest
        assert repository.read_manifest(str(pushed.digest)) == (pushed, data)
        assert parse_manifest(data).artifact_type == "application/vnd.example.thing"

    def test_a_manifest_without_a_tag_is_found_by_digest(self, repository: Repository) -> None:
        pushed = push_artifact(repository, b"weights")
        assert repository.resolve(str(pushed.digest)) == pushed
        assert repository.tags() == {}

    def test_index_round_trip(self, repository: Repository) -> None:
        children = tuple(
            push_artifact(repository, content.encode()) for content in ("amd64", "arm64")
        )
        index = Index(
            tuple(
                Descriptor(c.media_type, c.digest, c.size, platform=Platform("linux", "amd64"))
                for c in children
            ),
            artifact_type="application/vnd.example.index",
        )
        pushed = repository.push_manifest(index.to_bytes(), OCI_INDEX, tag="2")
        assert repository.resolve("2") == pushed
        assert parse_manifest(repository.read_manifest("2")[1]) == index

    def test_tags_move(self, repository: Repository) -> None:
        first = push_artifact(repository, b"one", tag="latest")
        second = push_artifact(repository, b"two", tag="latest")
        assert repository.resolve("latest") == second
        assert repository.resolve(str(first.digest)) == first
        repository.tag(first, "latest")
        assert repository.resolve("latest") == first

    def test_tags_are_sorted(self, repository: Repository) -> None:
        pushed = push_artifact(repository, b"one", tag="b")
        for tag in ("c", "a", "1.0.0"):
            repository.tag(pushed, tag)
        assert list(repository.tags()) == ["1.0.0", "a", "b", "c"]
        known = pushed.digest if self.tags_know_digests else None
        assert set(repository.tags().values()) == {known}

    def test_tagging_what_is_absent_is_refused(self, repository: Repository) -> None:
        with pytest.raises(NotFoundError):
            repository.tag(Descriptor(OCI_MANIFEST, ABSENT, 23), "latest")

    def test_referrers(self, repository: Repository) -> None:
        subject = push_artifact(repository, b"model", tag="1.0.0")
        signature = push_artifact(
            repository, b"signature", subject=subject, artifact_type="application/signature"
        )
        report = push_artifact(
            repository, b"report", subject=subject, artifact_type="application/report"
        )
        found = {item.digest: item for item in repository.referrers(subject.digest)}
        assert found.keys() == {signature.digest, report.digest}
        assert found[signature.digest].artifact_type == "application/signature"
        assert found[signature.digest].size == signature.size
        assert found[signature.digest].annotations == {"org.example": "one"}
        only = repository.referrers(subject.digest, "application/report")
        assert [item.digest for item in only] == [report.digest]
        assert repository.referrers(signature.digest) == []

    def test_a_subject_may_be_absent(self, repository: Repository) -> None:
        subject = Descriptor(OCI_MANIFEST, ABSENT, 23)
        signature = push_artifact(repository, b"signature", subject=subject)
        assert [item.digest for item in repository.referrers(ABSENT)] == [signature.digest]

    def test_pushing_a_referrer_twice_lists_it_once(self, repository: Repository) -> None:
        subject = push_artifact(repository, b"model")
        push_artifact(repository, b"signature", subject=subject)
        push_artifact(repository, b"signature", subject=subject)
        assert len(repository.referrers(subject.digest)) == 1

    def test_a_deleted_referrer_is_not_listed(self, repository: Repository) -> None:
        subject = push_artifact(repository, b"model")
        gone = push_artifact(repository, b"old signature", subject=subject)
        kept = push_artifact(repository, b"signature", subject=subject)
        repository.delete(str(gone.digest))
        assert [item.digest for item in repository.referrers(subject.digest)] == [kept.digest]

    def test_concurrent_referrers_are_all_listed(self, repository: Repository) -> None:
        subject = push_artifact(repository, b"model")

        def push(number: int) -> Digest:
            return push_artifact(repository, f"report {number}".encode(), subject=subject).digest

        with ThreadPoolExecutor(4) as pool:
            pushed = set(pool.map(push, range(12)))
        assert {item.digest for item in repository.referrers(subject.digest)} == pushed

    def test_deleting_a_tag_leaves_the_manifest_and_its_other_tags(
        self, repository: Repository
    ) -> None:
        pushed = push_artifact(repository, b"model", tag="1.0.0")
        repository.tag(pushed, "latest")
        repository.delete("latest")
        assert list(repository.tags()) == ["1.0.0"]
        assert repository.resolve("latest") is None
        assert repository.resolve(str(pushed.digest)) == pushed

    def test_deleting_a_manifest_takes_its_tags_along(self, repository: Repository) -> None:
        pushed = push_artifact(repository, b"model", tag="1.0.0")
        repository.delete(str(pushed.digest))
        assert repository.resolve("1.0.0") is None
        assert repository.resolve(str(pushed.digest)) is None

    def test_repositories_are_separate(self, store: Store) -> None:
        push_artifact(store.repository("models/a"), b"model", tag="1")
        assert store.repository("models/b").tags() == {}
        assert store.repository("models/a").resolve("1") is not None

    def test_a_target_that_is_neither_tag_nor_digest_is_absent(
        self, repository: Repository
    ) -> None:
        push_artifact(repository, b"model", tag="1")
        assert repository.resolve("no-such-tag") is None

    def test_pull_blob(self, repository: Repository, tmp_path: Path) -> None:
        repository.push_blob(describe(BLOB), BLOB)
        arrived: list[int] = []
        pull_blob(repository, describe(BLOB), tmp_path / "d" / "blob", on_progress=arrived.append)
        assert (tmp_path / "d" / "blob").read_bytes() == BLOB
        assert sum(arrived) == len(BLOB)
        assert [path.name for path in (tmp_path / "d").iterdir()] == ["blob"]

    def test_pull_blob_resumes(self, repository: Repository, tmp_path: Path) -> None:
        repository.push_blob(describe(BLOB), BLOB)
        (tmp_path / "blob.partial").write_bytes(BLOB[:100_000])
        pull_blob(repository, describe(BLOB), tmp_path / "blob")
        assert (tmp_path / "blob").read_bytes() == BLOB

    @pytest.mark.parametrize(
        "partial", [b"other content", BLOB + b"too much", b"!" + BLOB[1:], BLOB]
    )
    def test_pull_blob_over_a_partial_that_is_no_prefix(
        self, repository: Repository, tmp_path: Path, partial: bytes
    ) -> None:
        repository.push_blob(describe(BLOB), BLOB)
        (tmp_path / "blob.partial").write_bytes(partial)
        pull_blob(repository, describe(BLOB), tmp_path / "blob")
        assert (tmp_path / "blob").read_bytes() == BLOB

    def test_walk_gives_children_first(self, repository: Repository) -> None:
        child = push_artifact(repository, b"weights")
        index = Index((child, child)).to_bytes()
        root = repository.push_manifest(index, OCI_INDEX, tag="1")
        nodes = [node.descriptor.digest for node in walk(repository, root)]
        layers = {EMPTY_CONFIG.digest, describe(b"weights").digest}
        assert set(nodes[:2]) == layers
        assert nodes[2:] == [child.digest, root.digest]

    def test_copy_tree_takes_referrers_along(
        self, store: Store, other_store: Callable[[], Store]
    ) -> None:
        source = store.repository("models/digits")
        child = push_artifact(source, b"weights")
        root = source.push_manifest(Index((child,)).to_bytes(), OCI_INDEX, tag="1")
        on_child = push_artifact(source, b"signature of the child", subject=child)
        on_root = push_artifact(source, b"signature of the root", subject=root)
        on_signature = push_artifact(source, b"witness", subject=on_root)

        target = other_store().repository("mirror/digits")
        copy_tree(source, root, target, tag="stable")

        assert target.resolve("stable") == root
        assert b"".join(target.read_blob(describe(b"weights"))) == b"weights"
        assert [item.digest for item in target.referrers(child.digest)] == [on_child.digest]
        assert [item.digest for item in target.referrers(root.digest)] == [on_root.digest]
        assert [item.digest for item in target.referrers(on_root.digest)] == [on_signature.digest]

    @pytest.fixture
    def other_store(self, tmp_path: Path) -> Callable[[], Store]:
        from edgectl.oci.layout import LayoutStore

        return lambda: LayoutStore(tmp_path / "other")

    def test_the_fallback_tag_is_the_specifications(self) -> None:
        assert fallback_tag(ABSENT) == f"sha256-{ABSENT.hex}"
