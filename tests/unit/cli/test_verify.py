"""`edgectl verify`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from edgectl.digest import Digest
from edgectl.oci.layout import LayoutStore
from edgectl.trust.keyfile import write_key_pair
from edgectl.trust.keys import generate, load_private
from edgectl.trust.tree import sign_tree
from tests.unit.cli import signed
from tests.unit.cli.invoke import edgectl

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def model(tmp_path: Path) -> signed.Signed:
    made = signed.make(tmp_path)
    repository = LayoutStore(tmp_path).repository("models/digits")
    sign_tree(repository, made.index, load_private(made.key, b"pw"))
    return made


def test_a_signed_model_verifies(model: signed.Signed) -> None:
    outcome = edgectl("verify", model.ref, "--key", model.pub, "-o", "json")
    assert outcome.exit_code == 0
    assert outcome.json["verified"] is True
    assert outcome.json["digest"] == str(model.index.digest)
    assert (outcome.json["manifests"], outcome.json["bundles"]) == (3, 3)
    assert "3 signed manifests" in edgectl("verify", model.ref, "--key", model.pub).stdout


def test_one_of_several_keys_is_enough(model: signed.Signed, tmp_path: Path) -> None:
    write_key_pair(tmp_path / "other", generate(), b"")
    keys = ("--key", tmp_path / "other.pub", "--key", model.pub)
    assert edgectl("verify", model.ref, *keys).exit_code == 0


def test_another_key_is_refused(model: signed.Signed, tmp_path: Path) -> None:
    write_key_pair(tmp_path / "other", generate(), b"")
    outcome = edgectl("verify", model.ref, "--key", tmp_path / "other.pub")
    assert outcome.exit_code == 13
    assert str(model.index.digest) in outcome.stderr
    assert outcome.stdout == ""


def test_an_unsigned_model_is_refused(tmp_path: Path) -> None:
    made = signed.make(tmp_path)
    outcome = edgectl("verify", made.ref, "--key", made.pub)
    assert outcome.exit_code == 13
    assert "is not signed" in outcome.stderr


def test_a_byte_less_is_refused_by_name(model: signed.Signed, tmp_path: Path) -> None:
    digest = Digest.of(b"weights for a nuc")
    blob = tmp_path / "models/digits/blobs/sha256" / digest.hex
    blob.write_bytes(blob.read_bytes()[:-1])
    outcome = edgectl("verify", model.ref, "--key", model.pub)
    assert outcome.exit_code == 12
    assert f"model.onnx {digest}" in outcome.stderr


def test_a_key_has_to_be_given(model: signed.Signed) -> None:
    outcome = edgectl("verify", model.ref)
    assert outcome.exit_code == 64
    assert "--key" in outcome.stderr
