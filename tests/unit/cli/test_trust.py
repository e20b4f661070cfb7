"""`edgectl trust`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from edgectl.oci.layout import LayoutStore
from edgectl.trust.client import TrustClient
from tests.unit.cli.invoke import edgectl

if TYPE_CHECKING:
    from pathlib import Path

PROJECT = """\
apiVersion: edgectl.dev/v1alpha1
kind: Project
metadata: {name: demo}
spec:
  registry: oci-layout:./registry
  trust: {directory: keys/trust, expiry: {timestamp: 2h}}
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EDGECTL_KEY_PASSWORD", "pw")
    (tmp_path / "edgectl.yaml").write_text(PROJECT)
    return tmp_path


def test_init_refresh_rotate_and_status(project: Path) -> None:
    made = edgectl(
        "trust", "init", "-C", project, "--threshold", "root=2", "--keys", "root=3", "-o", "json"
    )
    assert made.exit_code == 0
    assert made.json[0] | {"expires": ""} == {
        "role": "root",
        "version": 1,
        "expires": "",
        "expired": False,
        "threshold": 2,
        "keys": 3,
        "keysHere": 3,
    }
    names = {path.name for path in (project / "keys/trust").glob("*.key")}
    assert names == {
        "root.key",
        "root-2.key",
        "root-3.key",
        "targets.key",
        "snapshot.key",
        "timestamp.key",
    }
    root = (project / "keys/trust/root.json").read_bytes()
    device = TrustClient(LayoutStore(project / "registry"), project / "device", root)
    device.refresh()

    refreshed = edgectl("trust", "refresh", "-C", project, "-o", "json").json
    assert [role["version"] for role in refreshed] == [1, 1, 1, 2]
    assert edgectl("trust", "rotate", "timestamp", "-C", project).exit_code == 0
    status = edgectl("trust", "status", "-C", project)
    assert status.exit_code == 0
    assert "root       version 2" in status.stdout
    device.refresh()


def test_init_says_which_file_devices_need(project: Path) -> None:
    made = edgectl("trust", "init", "-C", project)
    assert f"Ship devices with {project / 'keys/trust/root.json'}" in made.stdout


def test_a_second_init_is_refused(project: Path) -> None:
    edgectl("trust", "init", "-C", project)
    again = edgectl("trust", "init", "-C", project)
    assert again.exit_code == 14
    assert "edgectl trust refresh" in again.stderr


def test_before_init_the_next_step_is_said(project: Path) -> None:
    outcome = edgectl("trust", "status", "-C", project)
    assert outcome.exit_code == 14
    assert "edgectl trust init" in outcome.stderr


@pytest.mark.parametrize(
    ("option", "value", "code"),
    [
        ("--threshold", "root", 64),
        ("--threshold", "boss=1", 64),
        ("--keys", "root=two", 64),
        ("--threshold", "root=0", 20),
    ],
)
def test_wrong_numbers_are_refused_before_anything_is_made(
    option: str, value: str, code: int, project: Path
) -> None:
    outcome = edgectl("trust", "init", "-C", project, option, value)
    assert outcome.exit_code == code
    assert not (project / "keys").exists()


def test_a_wrong_password_is_one_clear_error(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    edgectl("trust", "init", "-C", project)
    monkeypatch.setenv("EDGECTL_KEY_PASSWORD", "wrong")
    outcome = edgectl("trust", "refresh", "-C", project)
    assert outcome.exit_code == 15
    assert "password does not open" in outcome.stderr


def test_init_takes_no_other_password_than_the_signing_key_has(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An apply asks once: with two passwords none would be right."""
    (project / "edgectl.yaml").write_text(PROJECT + "  signing: {key: keys/cosign.key}\n")
    monkeypatch.setenv("EDGECTL_KEY_PASSWORD", "another")
    edgectl("keys", "generate", "--output-key-prefix", project / "keys/cosign")
    monkeypatch.setenv("EDGECTL_KEY_PASSWORD", "pw")
    refused = edgectl("trust", "init", "-C", project)
    assert refused.exit_code == 15
    assert "give the password of the signing key" in refused.stderr
    assert not list((project / "keys/trust").glob("*"))
    monkeypatch.setenv("EDGECTL_KEY_PASSWORD", "another")
    assert edgectl("trust", "init", "-C", project).exit_code == 0
