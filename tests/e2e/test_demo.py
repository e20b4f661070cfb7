"""The demo: the whole story runs as it is told, and what it leaves is whole to the byte."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import pytest

from edgectl.agent.config import load
from edgectl.agent.loop import poll_once
from edgectl.errors import EdgectlError
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


def test_a_fresh_agent_names_a_damaged_blob_that_it_needs(
    demo: tuple[Path, str], tmp_path: Path
) -> None:
    state, _ = demo
    text = (state / "devices" / "pi-01" / "device.yaml").read_text()
    needed: set[str] = set()

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
            return error
        needed.update(path.name for path in (device / "state" / "blobs" / "sha256").iterdir())
        return None

    assert fresh("healthy") is None
    blobs = [blob for blob in (state / "registry").glob("**/blobs/sha256/*") if blob.name in needed]
    assert len(blobs) >= 8
    for number, blob in enumerate(sorted(blobs)):
        whole = blob.read_bytes()
        blob.write_bytes(whole[:-1])
        error = fresh(f"damaged-{number}")
        blob.write_bytes(whole)
        assert error is not None, f"{blob} was taken"
        assert blob.name in error.message
