"""`edgectl sign`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.registry import Registry
from tests.unit.cli import signed
from tests.unit.cli.invoke import edgectl
from tests.unit.trust.artifacts import TAG, push_model

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(autouse=True)
def _password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGECTL_KEY_PASSWORD", "pw")


def test_the_index_and_everything_below_is_signed_once(tmp_path: Path) -> None:
    model = signed.make(tmp_path)
    outcome = edgectl("sign", model.ref, "--key", model.key, "-o", "json")
    assert outcome.exit_code == 0
    assert outcome.json["digest"] == str(model.index.digest)
    assert len(outcome.json["signed"]) == 3
    index_file = tmp_path / "models/digits/index.json"
    before = index_file.read_bytes()
    again = edgectl("sign", model.ref, "--key", model.key)
    assert len(again.stdout.splitlines()) == 3
    assert index_file.read_bytes() == before


def test_over_http_with_insecure_said(tmp_path: Path) -> None:
    keys = signed.make(tmp_path)
    with Registry() as registry:
        push_model(registry.store().repository("edge/digits"))
        ref = f"{registry.host}/edge/digits:{TAG}"
        assert edgectl("sign", ref, "--key", keys.key, "--insecure").exit_code == 0
        assert edgectl("verify", ref, "--key", keys.pub, "--insecure").exit_code == 0


@pytest.mark.parametrize(
    ("ref", "code", "message"),
    [
        ("oci-layout:{path}/models/digits:9.9.9", 11, "there is no"),
        ("oci-layout:{path}/models/digits", 20, "neither tag nor digest"),
        ("nonsense", 20, "is not a reference"),
    ],
)
def test_a_wrong_reference_is_one_clear_error(
    ref: str, code: int, message: str, tmp_path: Path
) -> None:
    model = signed.make(tmp_path)
    outcome = edgectl("sign", ref.format(path=tmp_path), "--key", model.key)
    assert outcome.exit_code == code
    assert message in outcome.stderr
    assert "Next:" in outcome.stderr


def test_a_wrong_password_is_one_clear_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = signed.make(tmp_path)
    monkeypatch.setenv("EDGECTL_KEY_PASSWORD", "wrong")
    outcome = edgectl("sign", model.ref, "--key", model.key)
    assert outcome.exit_code == 15
    assert "password does not open" in outcome.stderr
