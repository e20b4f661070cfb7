"""Apply, with the real builders, the real command line and a registry on disk."""

from __future__ import annotations

import shutil
import signal
import subprocess
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pytest

from edgectl.oci.descriptor import Manifest, parse_manifest
from edgectl.oci.layout import LayoutStore
from tests.support.faults import Status
from tests.support.project import EDGECTL, Finished, Project

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.registry import Registry

pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class Applied:
    """A project, and how its plan and its apply ended."""

    project: Project
    planned: Finished
    done: Finished


@pytest.fixture(scope="module")
def applied(tmp_path_factory: pytest.TempPathFactory) -> Applied:
    """The reference project, applied; no test changes it."""
    project = Project(tmp_path_factory.mktemp("applied") / "repo")
    return Applied(project, project.run("plan", "--detailed-exitcode"), project.must("apply"))


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """The reference project, nothing applied."""
    return Project(tmp_path / "repo")


@pytest.fixture
def small(project: Project) -> Project:
    """One model for one target."""
    project.only_digits_for("intel-nuc")
    return project


def test_apply_releases_once_and_then_has_nothing_to_do(applied: Applied) -> None:
    assert applied.planned.code == 2
    project, first = applied.project, applied.done
    assert "Released shopfloor generation 1" in first.out
    rows = [line.split() for line in first.out.splitlines() if " accuracy " in line]
    assert {row[0] for row in rows} == {"digits:1.0.0", "tumour:1.0.0"}
    assert len(rows) == 6
    for row in rows:
        # This machine's times and memory are never shown as those of another architecture.
        assert (row[-3:] == ["-", "-", "-"]) is ("intel-nuc" not in row), row
    assert project.run("plan", "--detailed-exitcode").code == 0
    second = project.must("apply")
    assert "Nothing to apply" in second.out
    assert project.must("plan", "-o", "json").json["changed"] is False
    for what in ("models/digits:1.0.0", "models/tumour:1.0.0", "images/digits:1.0.0"):
        assert project.must(
            "verify", project.reference(what), "--key", project.public_key, "-o", "json"
        ).json["verified"]


@pytest.mark.parametrize("kind", ["docker_registry", "registry"])
def test_the_same_through_a_registry_server(
    tmp_path: Path, kind: str, request: pytest.FixtureRequest
) -> None:
    server = request.getfixturevalue(kind)
    project = Project(tmp_path / "repo", registry=f"{server.host}/edge", options=("--insecure",))
    project.only_digits_for("intel-nuc")
    assert project.run("plan", "--detailed-exitcode", "--insecure").code == 2
    assert "Released shopfloor generation 1" in project.must("apply", "--insecure").out
    assert "Nothing to apply" in project.must("apply", "--insecure").out
    reference = f"{server.host}/edge/models/digits:1.0.0"
    verified = project.must("verify", reference, "--key", project.public_key, "--insecure")
    assert "verified" in verified.out
    plain = project.run("plan")
    assert plain.code == 8, "TLS is on unless --insecure is said"
    assert "--insecure" in plain.err


def test_a_registry_that_is_down_read_only_or_asks_who_you_are(
    tmp_path: Path, registry: Registry
) -> None:
    project = Project(tmp_path / "repo", registry=f"{registry.host}/edge", options=("--insecure",))
    project.only_digits_for("intel-nuc")
    registry.inject(Status(405), method="POST", times=1000)
    refused = project.run("apply", "--insecure")
    assert (refused.code, "Traceback" in refused.err) == (9, False), refused.err
    registry.heal()
    registry.inject(Status(507), method="POST", times=1000)
    full = project.run("apply", "--insecure")
    assert (full.code, full.err.count("Error:"), "Traceback" in full.err) == (10, 1, False), (
        full.err
    )
    registry.heal()
    project.edit("edgectl.yaml", registry.host, "127.0.0.1:1")
    down = project.run("plan", "--insecure")
    assert (down.code, "Traceback" in down.err) == (8, False), down.err
    assert "Next:" in down.err


def test_two_clean_builds_have_the_same_digests(applied: Applied, project: Project) -> None:
    project.must("apply", "--jobs", "1")
    assert project.indexes() == applied.project.indexes()
    assert len(project.indexes()) == 4


def test_killed_anywhere_and_run_again_it_ends_in_the_same_digests(
    small: Project, tmp_path: Path
) -> None:
    undisturbed = Project(tmp_path / "undisturbed")
    undisturbed.only_digits_for("intel-nuc")
    undisturbed.must("apply")
    kills = 0
    for written in (1, 2, 4, 6, 8, 10, 12, 15, 20):
        kills += _kill_when(small, files=written * 3)
    small.must("apply")
    assert kills >= 3, "the apply was killed too late to mean anything"
    assert small.indexes() == undisturbed.indexes()
    assert small.run("plan", "--detailed-exitcode").code == 0
    small.must("verify", small.reference("models/digits:1.0.0"), "--key", small.public_key)


def _kill_when(project: Project, *, files: int) -> bool:
    """Start an apply and SIGKILL it once it has written so many blobs; whether it was in time."""
    blobs = project.root / "registry" / "models" / "digits" / "blobs" / "sha256"
    before = len(list(blobs.iterdir())) if blobs.is_dir() else 0
    process = subprocess.Popen(
        [EDGECTL, "apply"],
        cwd=project.root,
        env=project.environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    while process.poll() is None:
        if blobs.is_dir() and len(list(blobs.iterdir())) >= before + files:
            process.send_signal(signal.SIGKILL)
            break
        time.sleep(0.002)
    return process.wait() == -signal.SIGKILL


def test_a_variant_that_fails_its_gate_stops_the_fleets_that_need_it_and_nothing_else(
    project: Project,
) -> None:
    project.edit("models/digits.yaml", "min: 0.95", "min: 0.999")
    fleet = (project.root / "fleets/shopfloor.yaml").read_text()
    other = fleet.replace("name: shopfloor", "name: clinic")
    lines = [line for line in other.splitlines() if "digits" not in line]
    (project.root / "fleets/clinic.yaml").write_text("\n".join(lines) + "\n")
    done = project.run("apply")
    assert done.code == 6
    assert "accuracy is 0.9" in done.err
    assert done.err.count("allowed is at least 0.9990") == 3, "one error a variant, each told once"
    assert "Released clinic generation 1" in done.out
    assert "Not released: shopfloor" in done.out
    assert project.must("status", "-o", "json").json["fleets"][1]["release"] is None


def test_a_variant_too_large_for_its_target_leaves_the_other_targets_alone(
    project: Project,
) -> None:
    project.only_digits_for("intel-nuc", "raspberry-pi-5")
    project.edit("targets/raspberry-pi-5.yaml", "modelSize: 100Mi", "modelSize: 1Ki")
    fleet = (project.root / "fleets/shopfloor.yaml").read_text()
    only = fleet.replace("name: shopfloor", "name: desk").replace(
        "[intel-nuc, raspberry-pi-5]", "[intel-nuc]"
    )
    (project.root / "fleets/desk.yaml").write_text(only)
    done = project.run("apply")
    assert done.code == 6
    assert "model size is" in done.err
    assert "allowed is at most 1.0 KiB" in done.err
    assert "Released desk generation 1" in done.out
    assert "Not released: shopfloor" in done.out
    again = project.run("apply")
    assert again.code == 6
    assert "Released" not in again.out, "what did not change is not released again"


def test_a_cached_result_that_nobody_trusted_signed_is_not_used(small: Project) -> None:
    small.must("apply")
    honest = small.indexes()
    repository = LayoutStore(small.root / "registry").repository("models/digits")
    planned = small.must("plan", "-o", "json").json
    assert planned["changed"] is False
    cached = [tag for tag in repository.tags() if tag.startswith("cache-")]
    for tag in cached:
        _, data = repository.read_manifest(tag)
        manifest = parse_manifest(data)
        if isinstance(manifest, Manifest):
            evil = Manifest(
                manifest.config,
                manifest.layers,
                artifact_type=manifest.artifact_type,
                annotations={**manifest.annotations, "evil": "yes"},
            )
            repository.push_manifest(evil.to_bytes(), evil.media_type, tag=tag)
    repository.delete("1.0.0")
    small.must("apply")
    assert small.indexes() == honest


@pytest.mark.parametrize(
    ("spoil", "code", "words"),
    [
        ("sha256", 4, "spec.source.sha256"),
        ("garbage", 5, "not a valid ONNX model"),
        ("calibration", 3, "spec.inputs[0] declares FP32"),
        ("password", 15, "password"),
        ("no trust", 14, "edgectl trust init"),
        ("missing file", 3, "digits-9.9.9.onnx"),
    ],
)
def test_bad_input_is_one_clear_error_and_nothing_is_released(
    small: Project, spoil: str, code: int, words: str
) -> None:
    environment: dict[str, str] = {}
    match spoil:
        case "sha256":
            small.edit(
                "models/digits.yaml",
                "    format: onnx",
                f"    format: onnx\n    sha256: {'a' * 64}",
            )
        case "garbage":
            (small.root / "models/digits-1.0.0.onnx").write_bytes(b"\x08\x07garbage" * 100)
        case "calibration":
            np.savez(
                small.root / "data/digits/1.0.0/calibration.npz",
                image=np.zeros((4, 3, 8, 8), np.float32),
            )
        case "password":
            environment["EDGECTL_KEY_PASSWORD"] = "wrong"
        case "no trust":
            shutil.rmtree(small.root / "registry")
        case "missing file":
            small.edit("models/digits.yaml", "path: digits-1.0.0.onnx", "path: digits-9.9.9.onnx")
    before = _listing(small.root / "registry" / "trust")
    done = small.run("apply", **environment)
    assert (done.code, "Traceback" in done.err) == (code, False), done.err
    assert words in done.err
    assert "Next:" in done.err
    assert _listing(small.root / "registry" / "trust") == before


def test_expired_release_metadata_says_what_to_do(small: Project) -> None:
    small.edit("edgectl.yaml", "timestamp: 1d", "timestamp: 1s")
    small.must("apply")
    time.sleep(1.1)
    status = small.must("status")
    assert "expired" in status.out
    assert "edgectl trust refresh" in status.out
    small.edit("edgectl.yaml", "timestamp: 1s", "timestamp: 1d")
    small.must("trust", "refresh")
    assert small.must("status", "-o", "json").json["expired"] is False


def _listing(directory: Path) -> list[str]:
    return sorted(str(path.relative_to(directory)) for path in directory.rglob("*"))
