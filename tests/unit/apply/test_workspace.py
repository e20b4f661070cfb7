"""A project opened for work: what it needs, and what it says where that is not there."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from edgectl.errors import (
    ConfigError,
    IntegrityError,
    KeyFileError,
    SourceError,
    ToolchainError,
    TrustError,
)
from edgectl.oci.descriptor import EMPTY_CONFIG, Descriptor, Manifest
from edgectl.oci.layout import LayoutStore
from edgectl.plan.compare import Action, make_plan
from edgectl.plan.observed import APPLIED_TYPE, applied_tag
from edgectl.trust.keyfile import write_key_pair
from edgectl.trust.keys import generate, load_private
from tests.support.builders import make_builder
from tests.support.toy import PASSWORD

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.toy import ToyProject


def test_a_source_in_a_directory_is_found_from_anywhere(
    toy: ToyProject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is relative to its manifest, as every path is."""
    raw = LayoutStore(toy.root / "raw").repository("digits")
    data = b'{"accuracy": 0.97}'
    layer = Descriptor.of(data, "application/octet-stream")
    raw.push_blob(EMPTY_CONFIG, b"{}")
    raw.push_blob(layer, data)
    manifest = Manifest(EMPTY_CONFIG, (layer,))
    digest = raw.push_manifest(manifest.to_bytes(), manifest.media_type).digest
    toy.model(precision="fp32", source=f"oci: 'oci-layout:raw/digits@{digest}'")
    toy.fleet(targets=["intel-nuc"])
    monkeypatch.chdir(tmp_path)
    report = toy.apply()
    assert not report.failures
    assert report.releases


def test_a_plan_hashes_no_builder_that_it_does_not_use(toy: ToyProject) -> None:
    builders = toy.root / "builders"
    make_builder(builders, "pass", name="unused")
    planning, failing = toy.workspace(), toy.workspace()
    (builders / "unused/build.py").unlink()
    desired = planning.desired()
    (builders / "toy/build.py").unlink()
    assert make_plan(desired, planning.observe(desired)).changed
    with pytest.raises(ToolchainError, match="'toy' cannot be read"):
        failing.plan()


def test_a_key_whose_signatures_nobody_accepts_is_refused(toy: ToyProject) -> None:
    write_key_pair(toy.root / "keys" / "other", generate(), PASSWORD.encode())
    shutil.copy(toy.root / "keys" / "other.pub", toy.root / "keys" / "cosign.pub")
    with pytest.raises(KeyFileError, match=r"none of spec\.signing\.publicKeys"):
        toy.apply()


def test_release_keys_that_are_elsewhere_stop_an_apply_before_it_builds(toy: ToyProject) -> None:
    for file in (toy.root / "trust").rglob("*.key"):
        file.unlink()
    with pytest.raises(KeyFileError, match="keys that a release needs"):
        toy.apply()
    assert not (toy.root / "registry" / "models").exists()


def test_release_keys_with_another_password_stop_an_apply_before_it_builds(
    toy: ToyProject,
) -> None:
    trust = toy.root / "trust"
    key = load_private(trust / "targets.key", PASSWORD.encode())
    for file in trust.glob("targets.*"):
        file.unlink()
    write_key_pair(trust / "targets", key, b"another")
    with pytest.raises(KeyFileError, match="password"):
        toy.apply()
    assert not (toy.root / "registry" / "models").exists()


def test_without_a_release_repository_it_says_how_to_make_one(toy: ToyProject) -> None:
    shutil.rmtree(toy.root / "registry")
    (toy.root / "trust" / "seen-timestamp").unlink()
    workspace = toy.workspace()
    assert workspace.releases() == {}
    assert workspace.expires() is None
    with pytest.raises(TrustError) as caught:
        toy.apply()
    assert "edgectl trust init" in (caught.value.hint or "")


def test_a_registry_that_was_emptied_is_not_a_new_one(toy: ToyProject) -> None:
    assert not toy.apply().failures
    shutil.rmtree(toy.root / "registry")
    with pytest.raises(TrustError, match="had releases, and has none now") as caught:
        toy.plan()
    assert "edgectl trust init" in (caught.value.hint or "")


def test_a_fleet_without_a_release_names_those_that_have_one(toy: ToyProject) -> None:
    with pytest.raises(ConfigError) as caught:
        toy.workspace().history("shop")
    assert caught.value.hint == "edgectl apply releases the fleets of the manifests"


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b"[" * 100_000, b'{"key": 1}'])
def test_a_malformed_applied_record_is_said(toy: ToyProject, data: bytes) -> None:
    repository = toy.repository()
    config = Descriptor.of(data, APPLIED_TYPE)
    repository.push_blob(config, data)
    record = Manifest(config, (), artifact_type=APPLIED_TYPE)
    repository.push_manifest(record.to_bytes(), record.media_type, tag=applied_tag("1.0.0"))
    with pytest.raises(IntegrityError, match=r"applied-1\.0\.0: malformed") as caught:
        toy.plan()
    assert "delete the tag applied-1.0.0" in (caught.value.hint or "")


def test_an_applied_record_that_is_lost_is_made_again(toy: ToyProject) -> None:
    config = Descriptor.of(b"gone", APPLIED_TYPE)
    record = Manifest(config, (), artifact_type=APPLIED_TYPE)
    toy.repository().push_manifest(record.to_bytes(), record.media_type, tag=applied_tag("1.0.0"))
    assert [change.action for change in toy.plan().models] == [Action.CREATE]


def test_every_file_with_another_digest_is_told_at_its_line(toy: ToyProject) -> None:
    manifest = toy.root / "digits-1.0.0.yaml"
    text = manifest.read_text()
    for name in ("digits-1.0.0.onnx", "golden.npz"):
        text = text.replace(f"path: {name}", f"path: {name}, sha256: {'a' * 64}")
    manifest.write_text(text)
    with pytest.raises(SourceError) as caught:
        toy.plan()
    first, *told = caught.value.message.splitlines()
    assert first == "2 problems with the files that the manifests name:"
    assert [line.partition(" has sha256")[0] for line in told] == [
        f"  {manifest}:8:59: spec.source.sha256: {toy.root}/digits-1.0.0.onnx",
        f"  {manifest}:12:38: spec.golden.sha256: {toy.root}/golden.npz",
    ]
