"""The demo: the whole story runs as it is told, and what it leaves is whole to the byte."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import pytest

from edgectl.agent.config import load
from edgectl.agent.loop import poll_once
from edgectl.errors import EdgectlError, IntegrityError
from tests.support.project import EDGECTL, REPOSITORY

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The demo's state directory, and all that it printed."""
    state = tmp_path_factory.mktemp("demo") / ".demo"
    done = subprocess.run(
        [sys.executable, str(REPOSITORY / "demo" / "story.py")],
        env={**os.environ, "EDGECTL_DEMO": str(state)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return state, done.stdout


def test_it_tells_the_story_in_order(demo: tuple[Path, str]) -> None:
    _, told = demo
    beats = (
        "3 to create",
        "Released shopfloor generation 1",
        "Nothing to apply",
        "verified oci-layout:",
        "5 of 5 right",
        "ring canary: digits 1.0.0 -> 1.1.0",
        "Released shopfloor generation 2",
        "rollout advance to stable",
        "Released shopfloor generation 4",
        "of the labelled samples right on this device, the ring asks for 90.0%",
        "runs        digits 1.1.0",
        "rollback to generation 1",
        "To go on by hand",
    )
    at = 0
    for beat in beats:
        found = told.find(beat, at)
        assert found >= 0, f"{beat!r} is missing, or not in its place:\n{told[at:][:3000]}"
        at = found


def test_no_request_failed_while_the_bad_version_came_and_went(demo: tuple[Path, str]) -> None:
    match = re.search(r"all along: (\d+); failed: (\d+)", demo[1])
    assert match is not None
    assert int(match[1]) > 100
    assert int(match[2]) == 0


def test_it_is_plain_text_where_there_is_no_terminal(demo: tuple[Path, str]) -> None:
    assert "\033" not in demo[1]


def test_only_the_canary_ever_fetched_the_bad_version(demo: tuple[Path, str]) -> None:
    state, _ = demo
    refused = {
        name: subprocess.run(
            [EDGECTL, "agent", "status", "-c", str(state / "devices" / name / "device.yaml")],
            capture_output=True,
            text=True,
            check=True,
        ).stdout.count("refused ")
        for name in ("nuc-01", "pi-01", "jetson-01")
    }
    assert refused["nuc-01"] > 0
    assert refused["pi-01"] == refused["jetson-01"] == 0


@pytest.mark.parametrize("reference", ["models/digits:1.0.0", "images/digits:1.0.0"])
def test_skopeo_inspects_what_is_in_the_registry(demo: tuple[Path, str], reference: str) -> None:
    state, _ = demo
    command = ["skopeo", "inspect", f"oci:{state / 'registry'}/{reference}"]
    told = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    assert told["Architecture"] == "amd64"
    assert told["Layers"]


def test_skopeo_shows_the_labels_and_files_of_a_platform(demo: tuple[Path, str]) -> None:
    source = f"oci:{demo[0] / 'registry'}/models/digits:1.0.0"
    command = ["skopeo", "inspect", "--override-arch", "arm64", "--override-variant", "v8", source]
    told = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    assert told["Labels"] == {
        "org.opencontainers.image.title": "digits",
        "org.opencontainers.image.version": "1.0.0",
        "dev.edgectl.targets": "jetson-orin-nano,raspberry-pi-5",
    }
    # A model file, golden data and card each, of which the targets may share some.
    assert len(told["Layers"]) > 4


def test_skopeo_copies_a_model_with_its_digest(demo: tuple[Path, str], tmp_path: Path) -> None:
    source = f"{demo[0] / 'registry'}/models/digits"
    command = ["skopeo", "copy", "--all", "--preserve-digests"]
    copy = tmp_path / "copy"
    subprocess.run([*command, f"oci:{source}:1.0.0", f"oci:{copy}:1.0.0"], check=True)
    told = [
        subprocess.run(
            ["skopeo", "inspect", "--raw", f"oci:{layout}:1.0.0"], capture_output=True, check=True
        ).stdout
        for layout in (source, copy)
    ]
    assert told[0] == told[1]


def test_verify_names_every_blob_that_lost_a_byte(demo: tuple[Path, str]) -> None:
    state, _ = demo
    command = [
        EDGECTL, "verify", f"oci-layout:{state / 'registry'}",
        "--key", str(state / "keys" / "cosign.pub"),
    ]  # fmt: skip
    assert subprocess.run(command, capture_output=True, check=False).returncode == 0
    blobs = sorted((state / "registry").glob("**/blobs/sha256/*"))
    assert len(blobs) > 100
    for blob in blobs[:: max(1, len(blobs) // 40)]:
        whole = blob.read_bytes()
        blob.write_bytes(whole[:-1])
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        blob.write_bytes(whole)
        assert done.returncode == 12, f"{blob}: {done.returncode} {done.stderr}"
        assert blob.name in done.stderr, f"{blob}: {done.stderr}"
        assert "Traceback" not in done.stderr


def test_a_fresh_agent_names_every_damaged_blob(demo: tuple[Path, str], tmp_path: Path) -> None:
    """Of another target too, or of a signature: the demo's devices check the whole directory."""
    state, _ = demo
    text = (state / "devices" / "pi-01" / "device.yaml").read_text()

    def fresh(name: str) -> EdgectlError | None:
        device = tmp_path / name
        device.mkdir()
        (device / "device.yaml").write_text(
            re.sub(r"server:.*", "", text)
            .replace("../../registry", str(state / "registry"))
            .replace("../../keys", str(state / "keys"))
            .replace("samples/digits", str(state / "devices/pi-01/samples/digits"))
        )
        (device / "root.json").write_bytes((state / "trust" / "root.json").read_bytes())
        try:
            poll_once(load(device / "device.yaml"), threading.Event())
        except EdgectlError as error:
            assert not (device / "state" / "current").exists()
            return error
        return None

    assert fresh("healthy") is None
    blobs = sorted((state / "registry").glob("**/blobs/sha256/*"))
    every = int(os.environ.get("EDGECTL_TEST_EVERY_BLOB", "0")) or len(blobs) // 30
    for number, blob in enumerate(blobs[::every]):
        whole = blob.read_bytes()
        blob.write_bytes(whole[:-1])
        error = fresh(f"damaged-{number}")
        blob.write_bytes(whole)
        assert isinstance(error, IntegrityError), f"{blob} was taken: {error}"
        assert blob.name in error.message
