"""The verbs on a project, as the command line runs them: what they print and how they end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from typing import TYPE_CHECKING, Any

import pytest

from edgectl.apply.measured import Measurement
from edgectl.cli.apply import _show_measured
from tests.support.project import EDGECTL
from tests.unit.cli.invoke import edgectl

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.toy import ToyProject
    from tests.unit.cli.invoke import Outcome


@pytest.fixture
def small(toy: ToyProject) -> ToyProject:
    """One model for one target, not quantised."""
    toy.model(precision="fp32")
    toy.fleet(targets=["intel-nuc"])
    return toy


def run(toy: ToyProject, *arguments: str) -> Outcome:
    return edgectl(*arguments, "-C", toy.root)


def must(toy: ToyProject, *arguments: str) -> Any:
    done = run(toy, *arguments, "-o", "json")
    assert done.exit_code == 0, done.stderr
    return done.json


def ring_versions(release: dict[str, Any]) -> list[str]:
    return [ring["models"][0]["version"] for ring in release["rings"]]


def device(toy: ToyProject, **labels: str) -> Path:
    """The device.yaml of a Raspberry Pi of the fleet."""
    file = toy.root.with_name(f"device-{len(labels)}.yaml")
    file.write_text(
        f"device: {{id: pi, labels: {json.dumps(labels)}}}\nfleet: shop\n"
        "registry: oci-layout:repo/registry\ntrust: {root: repo/trust/root.json}\n"
        "keys: [repo/keys/cosign.pub]\nstate: state\nfacts: {simulate: raspberry-pi-5}\n"
    )
    return file


def test_plan_says_what_apply_does_and_apply_does_it(small: ToyProject) -> None:
    planned = run(small, "plan", "--detailed-exitcode")
    assert planned.exit_code == 2
    assert "model digits:1.0.0" in planned.stdout
    assert "Plan: 2 to create" in planned.stdout
    assert run(small, "plan").exit_code == 0, "changes are no failure unless asked for"
    plan = must(small, "plan")
    report = must(small, "apply")
    assert report["plan"] == plan
    steps = plan["models"][0]["steps"]
    assert report["ran"] == len(steps)
    assert [release["generation"] for release in report["releases"]] == [1]
    assert report["measured"][0]["report"]["metrics"] == {"accuracy": 0.97}
    assert run(small, "plan", "--detailed-exitcode").exit_code == 0
    again = run(small, "apply")
    assert (again.exit_code, "Nothing to apply" in again.stdout) == (0, True)
    assert must(small, "apply")["ran"] == 0


def test_apply_tells_people_what_was_measured_and_released(small: ToyProject) -> None:
    done = run(small, "apply")
    assert done.exit_code == 0, done.stderr
    assert "accuracy 0.9700" in done.stdout
    assert "left to the warm-up of the devices" in done.stdout
    assert "Released shop generation 1" in done.stdout
    assert "done     import digits:1.0.0" in done.stderr


def test_the_arena_of_a_microcontroller_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    report = {"target": "esp32-s3", "precision": "int8", "metrics": {}, "sizeBytes": 5427}
    _show_measured([Measurement("pump:1.0.0", report | {"latency": {}, "arenaBytes": 3680}, {})])
    assert "  pump:1.0.0 for esp32-s3: the arena takes 3.6 KiB\n" in capsys.readouterr().out


def test_a_failed_gate_is_told_in_both_forms_with_its_exit_code(small: ToyProject) -> None:
    small.model(says={"accuracy": 0.5}, precision="fp32")
    text = run(small, "apply")
    assert text.exit_code == 6
    assert "Not released: shop: it needs: package digits:1.0.0 for intel-nuc" in text.stdout
    assert "allowed is at least 0.9000" in text.stderr
    machine = run(small, "apply", "-o", "json")
    assert machine.exit_code == 6
    assert [failure["code"] for failure in machine.json["failures"]] == ["gate-failed"]
    assert list(machine.json["withheld"]) == ["shop"]


def test_a_toolchain_that_cannot_be_made_is_told_once(toy: ToyProject) -> None:
    toy.model("tumour")
    toy.fleet("digits", "tumour")
    (toy.root / "builders/toy/requirements.lock").write_text("gone @ file:///gone-1.0.whl\n")
    done = run(toy, "apply")
    assert done.exit_code == 7
    assert done.stderr.count("the toy toolchain cannot be made") == 1
    assert done.stderr.count("  failed   ") == 2
    assert done.stderr.count("blocked") == 1
    assert "  blocked  24 steps that need what failed\n" in done.stderr


def test_a_wrong_password_stops_before_anything_is_built(
    small: ToyProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGECTL_KEY_PASSWORD", "hunter2")
    done = run(small, "apply")
    assert done.exit_code == 15
    assert "hunter2" not in done.stdout + done.stderr
    assert "Next:" in done.stderr
    assert not (small.root / "registry" / "models").exists()


def test_a_selection_that_names_nothing_suggests(small: ToyProject) -> None:
    done = run(small, "plan", "--target", "intel-nux")
    assert done.exit_code == 3
    assert "did you mean" in done.stderr


def test_status_before_and_after(small: ToyProject) -> None:
    before = must(small, "status")
    assert (before["models"][0]["index"], before["fleets"][0]["release"]) == (None, None)
    assert "not released" in run(small, "status").stdout
    run(small, "apply")
    after = must(small, "status")
    assert after["models"][0]["index"].startswith("sha256:")
    assert after["fleets"][0]["release"]["generation"] == 1
    assert not after["expired"]
    assert "generation 1, apply" in run(small, "status").stdout
    (small.root / "fleet-shop.yaml").unlink()
    small.fleet(name="other", targets=["intel-nuc"])
    assert [(f["name"], f["wanted"]) for f in must(small, "status")["fleets"]] == [
        ("other", True),
        ("shop", False),
    ]
    assert "not in the manifests" in run(small, "status").stdout


def test_a_release_advances_rolls_back_is_held_and_resumes(small: ToyProject) -> None:
    run(small, "apply")
    small.model(version="1.1.0", says={"accuracy": 0.98}, precision="fp32")
    assert ring_versions(must(small, "apply")["releases"][0]) == ["1.1.0", "1.0.0"]
    assert "(lags)" in run(small, "status").stdout
    assert "rollout advance shop" in run(small, "plan").stdout
    assert ring_versions(must(small, "rollout", "advance", "shop")) == ["1.1.0", "1.1.0"]
    nothing = run(small, "rollout", "advance", "shop")
    assert (nothing.exit_code, "nothing to advance" in nothing.stderr) == (20, True)
    assert ring_versions(must(small, "rollback", "shop")) == ["1.1.0", "1.0.0"]
    back = must(small, "rollback", "shop")
    assert ring_versions(back) == ["1.0.0", "1.0.0"]
    assert [held["version"] for held in back["held"]] == ["1.1.0"]
    assert run(small, "rollback", "shop").exit_code == 20
    held = run(small, "apply")
    assert "is held back" in held.stdout
    assert "Nothing to apply" in held.stdout
    assert "held digits 1.1.0" in run(small, "status").stdout
    assert must(small, "rollout", "resume", "shop")["held"] == []
    assert ring_versions(must(small, "apply")["releases"][0]) == ["1.1.0", "1.0.0"]
    generations = [release["generation"] for release in must(small, "history", "shop")]
    assert generations == list(range(1, 8))
    text = run(small, "history", "shop").stdout
    assert "rollback to generation 1" in text
    again = run(small, "rollback", "shop", "--to", "3")
    assert again.exit_code == 0
    assert "rollback to generation 3" in again.stdout


@pytest.mark.parametrize("verb", [["history"], ["rollback"], ["rollout", "advance"]])
def test_a_fleet_without_a_release_is_one_clear_error(small: ToyProject, verb: list[str]) -> None:
    (small.root / "broken.yaml").write_text("a: [\n")  # which is nothing to what was released
    done = run(small, *verb, "shop")
    assert done.exit_code == 20
    assert "has no release" in done.stderr


def test_explain_says_which_variant_a_device_gets_and_why(toy: ToyProject) -> None:
    run(toy, "apply")
    file = str(device(toy))
    found = must(toy, "explain", "digits", "--device", file)
    assert found["chosen"]["target"] == "raspberry-pi-5"
    assert [item["target"] for item in found["rejected"]] == ["intel-nuc"]
    assert found["because"] == "ring stable of fleet shop"
    text = run(toy, "explain", "digits", "--device", file).stdout
    assert "gets raspberry-pi-5" in text
    assert "not intel-nuc" in text
    absent = run(toy, "explain", "digits:9.9.9", "--device", file)
    assert (absent.exit_code, "edgectl apply builds it" in absent.stderr) == (11, True)
    other = run(toy, "explain", "tumour", "--device", file)
    assert (other.exit_code, "its models are digits" in other.stderr) == (20, True)


def test_explain_follows_the_release_and_not_the_tag(small: ToyProject) -> None:
    """The stable ring still runs the first build of a version that was built anew."""
    small.fleet(targets=["raspberry-pi-5"])
    run(small, "apply")
    stable, canary = str(device(small)), str(device(small, ring="canary"))
    first = must(small, "explain", "digits", "--device", stable)["chosen"]["digest"]
    small.model(says={"accuracy": 0.99}, precision="fp32")
    run(small, "apply")
    assert must(small, "explain", "digits", "--device", stable)["chosen"]["digest"] == first
    newer = must(small, "explain", "digits", "--device", canary)["chosen"]["digest"]
    assert newer != first


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_an_apply_with_its_toolchain_and_files(
    small: ToyProject, tmp_path: Path, number: signal.Signals
) -> None:
    started = tmp_path / "started"
    build = small.root / "builders" / "toy" / "build.py"
    build.write_text(
        f"import os, pathlib, time\npathlib.Path({str(started)!r}).write_text(str(os.getpid()))\n"
        "time.sleep(600)\n"
    )
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    with subprocess.Popen(
        [EDGECTL, "apply"],
        cwd=small.root,
        env={**os.environ, "TMPDIR": str(temporary)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        while not started.exists() or not started.read_text():
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(number)
        _, errors = process.communicate()
    assert process.returncode == 130
    assert "interrupted" in errors
    assert "Traceback" not in errors
    assert not list(temporary.iterdir())
    with pytest.raises(ProcessLookupError):
        os.kill(int(started.read_text()), 0)
