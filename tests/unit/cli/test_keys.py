"""`edgectl keys`."""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING

from edgectl.trust.keys import load_private, load_public
from tests.unit.cli.invoke import edgectl

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def test_generate_makes_a_pair_that_show_knows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGECTL_KEY_PASSWORD", "from the environment")
    prefix = tmp_path / "keys" / "cosign"
    made = edgectl("keys", "generate", "--output-key-prefix", prefix, "-o", "json")

    assert made.exit_code == 0
    private = load_private(prefix.with_suffix(".key"), b"from the environment")
    assert made.json == {
        "privateKey": str(prefix.with_suffix(".key")),
        "publicKey": str(prefix.with_suffix(".pub")),
        "fingerprint": private.public.fingerprint,
    }
    assert stat.S_IMODE(prefix.with_suffix(".key").stat().st_mode) == 0o600
    shown = edgectl("keys", "show", prefix.with_suffix(".pub"))
    assert shown.stdout.split()[:3] == [private.public.fingerprint, "ECDSA", "secp256r1"]
    as_json = edgectl("keys", "show", prefix.with_suffix(".pub"), "-o", "json").json
    assert as_json[0]["fingerprint"] == private.public.fingerprint


def test_the_password_comes_from_a_file_without_its_line_break(tmp_path: Path) -> None:
    (tmp_path / "password").write_text("from a file\n")
    options = ("--output-key-prefix", tmp_path / "k", "--key-password-file", tmp_path / "password")
    assert edgectl("keys", "generate", *options).exit_code == 0
    key = load_private(tmp_path / "k.key", b"from a file")
    assert key.public == load_public(tmp_path / "k.pub")


def test_nothing_is_overwritten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGECTL_KEY_PASSWORD", "pw")
    assert edgectl("keys", "generate", "--output-key-prefix", tmp_path / "k").exit_code == 0
    before = (tmp_path / "k.key").read_bytes()
    again = edgectl("keys", "generate", "--output-key-prefix", tmp_path / "k")
    assert again.exit_code == 15
    assert "there already" in again.stderr
    assert (tmp_path / "k.key").read_bytes() == before


def test_without_a_password_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("EDGECTL_KEY_PASSWORD", raising=False)
    outcome = edgectl("keys", "generate", "--output-key-prefix", tmp_path / "k")
    assert outcome.exit_code == 15
    assert "EDGECTL_KEY_PASSWORD" in outcome.stderr
    assert list(tmp_path.iterdir()) == []


def test_an_empty_password_protects_no_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGECTL_KEY_PASSWORD", "")
    outcome = edgectl("keys", "generate", "--output-key-prefix", tmp_path / "k")
    assert outcome.exit_code == 15
    assert "the password is empty" in outcome.stderr
    assert not list(tmp_path.iterdir())


def test_show_refuses_what_is_no_public_key(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("x")
    outcome = edgectl("keys", "show", tmp_path / "x")
    assert outcome.exit_code == 15
    assert "not a PEM public key" in outcome.stderr
