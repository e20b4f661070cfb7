from __future__ import annotations

import socket
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import TYPE_CHECKING

import pytest

from edgectl.errors import (
    EdgectlError,
    IntegrityError,
    NotFoundError,
    RegistryDeniedError,
    RegistryUnavailableError,
    Retry,
    StorageFullError,
)
from edgectl.oci.access import Access, open_store
from edgectl.oci.descriptor import MAX_MANIFEST_BYTES
from edgectl.oci.reference import RegistryLocation
from edgectl.oci.transfer import pull_blob
from tests.support.faults import (
    After,
    Changed,
    Drop,
    Endless,
    Fault,
    Hang,
    IgnoreRange,
    LyingLength,
    Replaced,
    Silence,
    Status,
    Terse,
    Trickle,
)
from tests.support.registry import Registry
from tests.unit.oci.conformance import BLOB, describe, push_artifact

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from edgectl.oci.store import Repository


@pytest.fixture
def repository(registry: Registry) -> Repository:
    return registry.store().repository("models/digits")


@pytest.mark.parametrize(
    ("fault", "expected", "retry_after"),
    [
        (Status(429, retry_after=7), RegistryUnavailableError, 7),
        (Status(503, retry_after=0), RegistryUnavailableError, 0),
        (Status(503), RegistryUnavailableError, None),
        (Status(502), RegistryUnavailableError, None),
        (Status(500), RegistryUnavailableError, None),
        (Status(403), RegistryDeniedError, None),
        (Status(401), RegistryDeniedError, None),
        (Status(404), NotFoundError, None),
        (Status(400), RegistryDeniedError, None),
        (Status(405, code="UNSUPPORTED"), RegistryDeniedError, None),
        (Status(507), StorageFullError, None),
        (Status(500, message="write: no space left on device"), StorageFullError, None),
        (Hang(), RegistryUnavailableError, None),
    ],
)
@pytest.mark.parametrize("operation", ["read", "push blob", "push manifest"])
def test_refusals(
    registry: Registry,
    repository: Repository,
    fault: Fault,
    expected: type[EdgectlError],
    retry_after: float | None,
    operation: str,
) -> None:
    push_artifact(repository, b"model", tag="1")
    path = "/manifests/" if "manifest" in operation else "/blobs/"
    method = {"read": "GET", "push blob": "POST", "push manifest": "PUT"}[operation]
    registry.inject(fault, method=method, path=path)
    operations: dict[str, Callable[[], object]] = {
        "read": lambda: list(repository.read_blob(describe(b"model"))),
        "push blob": lambda: repository.push_blob(describe(BLOB), BLOB),
        "push manifest": lambda: push_artifact(repository, b"model", tag="2"),
    }
    with pytest.raises(expected) as caught:
        operations[operation]()
    assert type(caught.value) is expected
    assert caught.value.retry_after == retry_after
    assert registry.host in str(caught.value)
    assert "model" in str(caught.value)
    registry.heal()
    assert list(repository.tags()) == ["1"]


def test_retry_after_as_a_date(registry: Registry, repository: Repository) -> None:
    when = datetime.now(UTC) + timedelta(seconds=100)
    registry.inject(Status(503, retry_after=format_datetime(when, usegmt=True)))
    with pytest.raises(RegistryUnavailableError) as caught:
        repository.resolve("1")
    assert caught.value.retry is Retry.BACKOFF
    assert caught.value.retry_after == pytest.approx(100, abs=30)


def test_a_connection_that_was_closed_while_idle_is_replaced(
    registry: Registry, repository: Repository
) -> None:
    push_artifact(repository, b"model", tag="1")
    registry.inject(Hang(), times=1)
    assert repository.resolve("1") is not None
    registry.inject(Hang(), method="POST", times=1)
    with pytest.raises(RegistryUnavailableError, match="closed the connection"):
        repository.push_blob(describe(BLOB), BLOB)


def test_a_read_only_registry_denies_writes_alone() -> None:
    with Registry() as registry:
        repository = registry.store().repository("r")
        push_artifact(repository, b"model", tag="1")
        registry.read_only = True
        assert repository.resolve("1") is not None
        for write in (
            lambda: repository.push_blob(describe(BLOB), BLOB),
            lambda: push_artifact(repository, b"model", tag="2"),
            lambda: repository.delete("1"),
        ):
            with pytest.raises(RegistryDeniedError, match="read-only"):
                write()
        assert list(repository.tags()) == ["1"]


def test_nothing_listens() -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        location = RegistryLocation(f"127.0.0.1:{bound.getsockname()[1]}")
        repository = open_store(location, Access(insecure=True)).repository("r")
        with pytest.raises(RegistryUnavailableError, match="Connection refused"):
            repository.resolve("1")


def test_a_proxy_that_is_not_there_is_named_and_its_password_not(
    registry: Registry, repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://ann:secret@127.0.0.1:1")
    monkeypatch.setenv("NO_PROXY", "")
    with pytest.raises(RegistryUnavailableError, match="proxy") as caught:
        repository.resolve("1")
    assert "NO_PROXY" in (caught.value.hint or "")
    assert "secret" not in str(caught.value)
    assert not registry.requests


def test_a_name_that_does_not_resolve() -> None:
    location = RegistryLocation("registry.invalid")
    with pytest.raises(RegistryUnavailableError, match="does not resolve"):
        open_store(location).repository("r").resolve("1")


def test_silence_is_given_up(registry: Registry) -> None:
    repository = registry.store("", Access(insecure=True, timeout=0.2)).repository("r")
    registry.inject(Silence())
    with pytest.raises(RegistryUnavailableError, match="no answer in time"):
        repository.resolve("1")


def test_tls_is_on_unless_insecure_is_said(registry: Registry) -> None:
    repository = registry.store("", Access()).repository("r")
    with pytest.raises(RegistryUnavailableError, match="no TLS") as caught:
        repository.resolve("1")
    assert "--insecure" in str(caught.value.hint)
    assert registry.count("HEAD") == 0


def test_slow_retrieval_is_given_up_and_resumed(registry: Registry, tmp_path: Path) -> None:
    content = BLOB[:3000]
    access = Access(insecure=True, slow_after=0.3)
    repository = registry.store("", access).repository("r")
    repository.push_blob(describe(content), content)
    registry.inject(Trickle(1, 0.02), method="GET", path="/blobs/", times=1)
    with pytest.raises(RegistryUnavailableError, match="bytes in"):
        pull_blob(repository, describe(content), tmp_path / "blob")
    partial = (tmp_path / "blob.partial").read_bytes()
    assert 0 < len(partial) < 100
    assert content.startswith(partial)
    pull_blob(repository, describe(content), tmp_path / "blob")
    assert (tmp_path / "blob").read_bytes() == content


def test_a_dropped_pull_resumes_by_range(
    registry: Registry, repository: Repository, tmp_path: Path
) -> None:
    repository.push_blob(describe(BLOB), BLOB)
    registry.inject(Drop(100_000), method="GET", path="/blobs/", times=1)
    with pytest.raises(RegistryUnavailableError):
        pull_blob(repository, describe(BLOB), tmp_path / "blob")
    arrived = (tmp_path / "blob.partial").stat().st_size
    assert arrived == 100_000
    assert not (tmp_path / "blob").exists()
    pull_blob(repository, describe(BLOB), tmp_path / "blob")
    assert (tmp_path / "blob").read_bytes() == BLOB
    assert registry.requests[-1].headers["Range"] == f"bytes={arrived}-"
    assert registry.requests[-1].status == 206


def test_an_ignored_range_still_ends_right(
    registry: Registry, repository: Repository, tmp_path: Path
) -> None:
    repository.push_blob(describe(BLOB), BLOB)
    registry.inject(IgnoreRange(), method="GET", path="/blobs/")
    (tmp_path / "blob.partial").write_bytes(BLOB[:1000])
    pull_blob(repository, describe(BLOB), tmp_path / "blob")
    assert (tmp_path / "blob").read_bytes() == BLOB


@pytest.mark.parametrize("fault", [Status(416), Changed(77)])
def test_a_resume_that_goes_wrong_starts_over(
    registry: Registry, repository: Repository, tmp_path: Path, fault: Fault
) -> None:
    repository.push_blob(describe(BLOB), BLOB)
    registry.inject(fault, method="GET", path="/blobs/", times=1)
    (tmp_path / "blob.partial").write_bytes(BLOB[:1000])
    pull_blob(repository, describe(BLOB), tmp_path / "blob")
    assert (tmp_path / "blob").read_bytes() == BLOB
    assert registry.count("GET", "/blobs/") == 2


@pytest.mark.parametrize(
    "fault",
    [Changed(0), Changed(len(BLOB) - 1), LyingLength(len(BLOB) + 1), LyingLength(len(BLOB) - 1)],
)
def test_wrong_bytes_are_refused_by_name_and_leave_nothing(
    registry: Registry, repository: Repository, tmp_path: Path, fault: Fault
) -> None:
    repository.push_blob(describe(BLOB), BLOB)
    registry.inject(fault, method="GET", path="/blobs/")
    with pytest.raises(IntegrityError, match=str(describe(BLOB).digest)):
        pull_blob(repository, describe(BLOB), tmp_path / "blob")
    assert not (tmp_path / "blob").exists()
    assert (tmp_path / "blob.partial").stat().st_size == 0


def test_endless_data_is_read_to_the_declared_size_alone(
    registry: Registry, repository: Repository
) -> None:
    repository.push_blob(describe(BLOB), BLOB)
    endless = Endless()
    registry.inject(endless, method="GET", path="/blobs/")
    assert b"".join(repository.read_blob(describe(BLOB))) == BLOB
    assert endless.over.wait(30)
    assert endless.sent[0] < len(BLOB) + (64 << 20)


def test_an_endless_manifest_is_refused(registry: Registry, repository: Repository) -> None:
    push_artifact(repository, b"model", tag="1")
    registry.inject(Endless(), method="GET", path="/manifests/")
    with pytest.raises(IntegrityError, match=str(MAX_MANIFEST_BYTES)):
        repository.read_manifest("1")


@pytest.mark.parametrize("target", ["1", "digest"])
def test_a_changed_manifest_is_refused(
    registry: Registry, repository: Repository, target: str
) -> None:
    pushed = push_artifact(repository, b"model", tag="1")
    registry.inject(Changed(10), method="GET", path="/manifests/")
    with pytest.raises(IntegrityError, match=str(pushed.digest)):
        repository.read_manifest("1" if target == "1" else str(pushed.digest))


def test_a_swapped_manifest_is_refused(registry: Registry, repository: Repository) -> None:
    wanted = push_artifact(repository, b"model")
    other = push_artifact(repository, b"other")
    manifests = registry.repositories["models/digits"].manifests
    manifests[str(wanted.digest)] = manifests[str(other.digest)]
    with pytest.raises(IntegrityError):
        repository.read_manifest(str(wanted.digest))


def test_a_head_that_says_too_little_is_asked_again_with_a_get(
    registry: Registry, repository: Repository
) -> None:
    pushed = push_artifact(repository, b"model", tag="1")
    registry.inject(Terse(), method="HEAD", path="/manifests/")
    assert repository.resolve("1") == pushed


def test_a_body_may_arrive_without_a_length(registry: Registry, repository: Repository) -> None:
    repository.push_blob(describe(BLOB), BLOB)
    registry.inject(LyingLength(-1), method="GET", path="/blobs/")
    assert b"".join(repository.read_blob(describe(BLOB))) == BLOB


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b'{"tags": 3}'])
def test_a_malformed_list_of_tags_is_one_clear_error(
    registry: Registry, repository: Repository, body: bytes
) -> None:
    push_artifact(repository, b"model", tag="1")
    registry.inject(Replaced(body), method="GET", path="/tags/")
    with pytest.raises(IntegrityError, match="tags"):
        repository.tags()


def test_an_upload_that_does_not_start_is_one_clear_error(
    registry: Registry, repository: Repository
) -> None:
    registry.inject(Replaced(b""), method="POST", path="/uploads/")
    with pytest.raises(RegistryUnavailableError, match="starts no upload"):
        repository.push_blob(describe(BLOB), BLOB)


def test_a_tag_survives_when_the_registry_deletes_nothing(
    registry: Registry, repository: Repository
) -> None:
    pushed = push_artifact(repository, b"model", tag="1")
    registry.inject(Status(405, code="UNSUPPORTED"), method="DELETE")
    with pytest.raises(RegistryDeniedError):
        repository.delete("1")
    assert repository.resolve("1") == pushed


def test_another_writer_overwrites_the_fallback_index() -> None:
    with Registry(referrers_api=False) as registry:
        repository = registry.store().repository("r")
        subject = push_artifact(repository, b"model")
        first = push_artifact(repository, b"first", subject=subject)
        tag = f"sha256-{subject.digest.hex}"
        tags = registry.repositories["r"].tags
        before = tags[tag]

        def other_writer() -> None:
            tags[tag] = before

        registry.inject(After(other_writer), method="PUT", path=tag, times=1)
        second = push_artifact(repository, b"second", subject=subject)
        found = {item.digest for item in repository.referrers(subject.digest)}
        assert found == {first.digest, second.digest}
