"""The HTTP store against Debian's docker-registry: a registry without a referrers API."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from edgectl.errors import (
    ConfigError,
    RegistryDeniedError,
    RegistryUnavailableError,
    StorageFullError,
)
from edgectl.oci.access import Access
from edgectl.oci.descriptor import OCI_INDEX, Index
from edgectl.oci.layout import LayoutStore
from edgectl.oci.transfer import copy_tree
from edgectl.trust.keys import generate
from edgectl.trust.tree import sign_tree, verify_tree
from tests.support.docker_registry import DockerRegistry
from tests.support.namespaces import SmallDisk
from tests.support.tls import make_certificates
from tests.unit.oci.conformance import BLOB, StoreConformance, describe, push_artifact

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from edgectl.oci.store import Store

# One user, ann, whose password is "secret".
HTPASSWD = "ann:$2b$05$2fdd6mQ1FGDWts3p7fC7fuky6X60INX9UVXyjmTMYNku1mbjSchoC\n"


@pytest.fixture(autouse=True)
def _no_docker_login(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "no-docker"))


class TestDockerRegistry(StoreConformance):
    @pytest.fixture
    def store(self, docker_registry: DockerRegistry) -> Store:
        return docker_registry.store("edge")


class TestWithTlsAndBasicCredentials(StoreConformance):
    @pytest.fixture
    def store(self, tmp_path: Path) -> Iterator[Store]:
        certificates = make_certificates(tmp_path)
        directory = tmp_path / "docker-registry"
        directory.mkdir()
        with DockerRegistry(directory, htpasswd=HTPASSWD, certificates=certificates) as registry:
            access = Access(username="ann", password="secret", ca_file=certificates.ca)
            yield registry.store("edge", access)


def test_an_unknown_ca_is_refused(tmp_path: Path) -> None:
    with DockerRegistry(tmp_path, certificates=make_certificates(tmp_path)) as registry:
        repository = registry.store("", Access()).repository("r")
        with pytest.raises(RegistryUnavailableError, match="not trusted") as caught:
            repository.resolve("1")
        assert "--ca-file" in str(caught.value.hint)


@pytest.mark.parametrize("content", [b"", b"\xff", b"-----BEGIN CERTIFICATE-----\nAA==\n", None])
def test_a_ca_file_without_certificates_is_no_reason_for_plain_http(
    tmp_path: Path, docker_registry: DockerRegistry, content: bytes | None
) -> None:
    file = tmp_path / "ca.pem"
    if content is not None:
        file.write_bytes(content)
    repository = docker_registry.store("", Access(ca_file=file)).repository("r")
    with pytest.raises(ConfigError, match="certificates") as caught:
        repository.resolve("1")
    assert "--ca-file" in str(caught.value.hint)


@pytest.mark.parametrize("password", [None, "wrong"])
def test_wrong_basic_credentials_are_denied(tmp_path: Path, password: str | None) -> None:
    with DockerRegistry(tmp_path, htpasswd=HTPASSWD) as registry:
        username = None if password is None else "ann"
        access = Access(insecure=True, username=username, password=password)
        repository = registry.store("", access).repository("r")
        with pytest.raises(RegistryDeniedError) as caught:
            repository.resolve("1")
        assert "docker login" in str(caught.value.hint)


def test_a_registry_in_maintenance_is_read_only(tmp_path: Path) -> None:
    with DockerRegistry(tmp_path) as registry:
        pushed = push_artifact(registry.store().repository("r"), b"model", tag="1")
    with DockerRegistry(tmp_path, read_only=True) as registry:
        repository = registry.store().repository("r")
        assert repository.resolve("1") == pushed
        with pytest.raises(RegistryDeniedError, match="read-only"):
            repository.push_blob(describe(BLOB), BLOB)
        with pytest.raises(RegistryDeniedError, match="read-only"):
            push_artifact(repository, b"model", tag="2")
        with pytest.raises(RegistryDeniedError, match="read-only"):
            repository.delete("1")
        assert list(repository.tags()) == ["1"]


def test_a_registry_without_space_says_so(tmp_path: Path) -> None:
    with SmallDisk(tmp_path / "disk", 1 << 20) as disk, DockerRegistry(disk.path) as registry:
        repository = registry.store().repository("r")
        push_artifact(repository, b"model", tag="1")
        content = bytes(4 << 20)
        with pytest.raises(StorageFullError):
            repository.push_blob(describe(content), content)
        assert not repository.has_blob(describe(content).digest)
        assert list(repository.tags()) == ["1"]


def test_a_layout_without_space_says_so(tmp_path: Path) -> None:
    with SmallDisk(tmp_path, 1 << 20) as disk:
        repository = LayoutStore(disk.path).repository("r")
        push_artifact(repository, b"model", tag="1")
        content = bytes(4 << 20)
        with pytest.raises(StorageFullError):
            repository.push_blob(describe(content), content)
        assert not repository.has_blob(describe(content).digest)
        assert not list(disk.path.glob("r/.edgectl-*"))
        assert list(repository.tags()) == ["1"]


def test_a_read_only_layout_can_be_read(tmp_path: Path) -> None:
    with SmallDisk(tmp_path, 1 << 20) as disk:
        pushed = push_artifact(LayoutStore(disk.path).repository("r"), b"model", tag="1")
        disk.make_read_only()
        repository = LayoutStore(disk.path).repository("r")
        assert repository.resolve("1") == pushed
        assert b"".join(repository.read_blob(describe(b"model"))) == b"model"
        with pytest.raises(RegistryDeniedError, match="Read-only"):
            push_artifact(repository, b"other", tag="2")


def test_a_usb_stick_to_a_registry_and_back(
    tmp_path: Path, docker_registry: DockerRegistry
) -> None:
    stick = LayoutStore(tmp_path / "stick").repository("models/digits")
    model = push_artifact(stick, BLOB, tag="1.0.0")
    signature = push_artifact(stick, b"signature", subject=model)
    remote = docker_registry.store("site").repository("models/digits")
    copy_tree(stick, model, remote, tag="1.0.0")
    back = LayoutStore(tmp_path / "back").repository("models/digits")
    copy_tree(remote, model, back, tag="1.0.0")
    assert back.resolve("1.0.0") == model
    assert [item.digest for item in back.referrers(model.digest)] == [signature.digest]
    assert b"".join(back.read_blob(describe(BLOB))) == BLOB


def test_skopeo_takes_a_signed_index_from_a_layout_to_a_registry_and_back(
    tmp_path: Path, docker_registry: DockerRegistry
) -> None:
    """Equal digests, and what is signed stays so: the signatures' lists are tags like any other."""
    key = generate()
    stick = LayoutStore(tmp_path / "stick").repository("models/digits")
    pushed = [push_artifact(stick, data) for data in (b"for a nuc", b"for a pi")]
    index = Index(tuple(replace(item, annotations={"dev.example.for": "x"}) for item in pushed))
    model = stick.push_manifest(index.to_bytes(), OCI_INDEX, tag="1.0.0")
    sign_tree(stick, model, key)
    remote = f"docker://{docker_registry.host}/models/digits"
    for tag in stick.tags():
        skopeo_copy(f"oci:{tmp_path}/stick/models/digits:{tag}", f"{remote}:{tag}")
    registry = docker_registry.store().repository("models/digits")
    (tmp_path / "back" / "models").mkdir(parents=True)
    for tag in registry.tags():
        skopeo_copy(f"{remote}:{tag}", f"oci:{tmp_path}/back/models/digits:{tag}")
    back = LayoutStore(tmp_path / "back").repository("models/digits")
    for repository in (registry, back):
        assert repository.resolve("1.0.0") == model
        assert verify_tree(repository, model, [key.public]).manifests == 3


def skopeo_copy(source: str, target: str) -> None:
    command = ["skopeo", "--insecure-policy", "copy", "--all", "--quiet"]
    insecure = ["--src-tls-verify=false", "--dest-tls-verify=false"]
    subprocess.run([*command, *insecure, source, target], check=True)


@pytest.mark.parametrize("arguments", [["--raw"], ["--raw", "--config"]])
def test_skopeo_reads_artifacts_from_a_layout(tmp_path: Path, arguments: list[str]) -> None:
    """Without `--raw`, skopeo 1.9 interprets images alone, whatever registry an artifact is in."""
    repository = LayoutStore(tmp_path).repository("models/digits")
    push_artifact(repository, b"weights", tag="1.0.0")
    source = f"oci:{tmp_path}/models/digits:1.0.0"
    told = subprocess.run(
        ["skopeo", "inspect", *arguments, source], capture_output=True, check=True
    )
    manifest = repository.read_manifest("1.0.0")[1]
    assert told.stdout == (b"{}" if "--config" in arguments else manifest)
