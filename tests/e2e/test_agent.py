"""The agent against real registries, real signatures, real models and a real server."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from threading import Event, Thread
from typing import TYPE_CHECKING, Any

import pytest

from edgectl.agent.device import open_device
from edgectl.agent.lock import lock
from edgectl.agent.report import status
from edgectl.agent.server import Server as ServerClient
from edgectl.agent.state import FILE
from edgectl.agent.update import Update
from edgectl.errors import (
    BusyError,
    EdgectlError,
    HealthError,
    IncompatibleError,
    NotFoundError,
    ServerUnavailableError,
)
from edgectl.oci.descriptor import Platform
from edgectl.oci.layout import LayoutStore
from edgectl.serve.slot import read_link, slot_path
from edgectl.trust.policy import Expiry
from edgectl.trust.release import Ring, Selector, SoakSettings
from edgectl.trust.repository import TrustRepository
from tests.support.fleet import Fleet, ModelOptions, picture, write_samples
from tests.support.polling import poll, refused, serving
from tests.support.server import running

if TYPE_CHECKING:
    from edgectl.agent.config import DeviceConfig


ARM64 = Platform("linux", "arm64", "v8")
SIMULATED = {"simulate": "server-amd64"}
"""For tests that have no time to ask every installed engine what it is."""
EDGECTL = str(Path(sys.executable).with_name("edgectl"))


def lose_the_database(config: DeviceConfig) -> None:
    for path in config.state.glob(f"{FILE}*"):
        path.unlink()


@pytest.fixture
def fleet(tmp_path: Path) -> Fleet:
    return Fleet(tmp_path, LayoutStore(tmp_path / "registry"))


def test_install_update_and_operator_rollback(fleet: Fleet) -> None:
    config = fleet.config()
    assert isinstance(refused(config), NotFoundError)  # no release of this fleet yet
    one, two = fleet.publish_model(), fleet.publish_model(version="2.0.0")
    fleet.release(one)
    outcome = poll(config)
    assert (outcome.result, outcome.generation, outcome.ring) == ("updated", 1, "all")
    assert poll(config).result == "up-to-date"
    fleet.release(two)
    assert poll(config).result == "updated"
    assert serving(config) == "2.0.0"
    assert read_link(config.state, "previous") == outcome.slot
    fleet.release(one)  # a rollback is a newer release of older digests
    again = poll(config)
    assert (again.result, again.generation, again.slot) == ("updated", 3, outcome.slot)
    assert serving(config) == "1.0.0"


def test_only_what_current_and_previous_need_is_kept(fleet: Fleet) -> None:
    config = fleet.config()
    for version in ("1.0.0", "2.0.0", "3.0.0"):
        fleet.release(fleet.publish_model(version=version))
        poll(config)
    assert len(list((config.state / "slots").iterdir())) == 2
    blobs = list((config.state / "blobs" / "sha256").iterdir())
    assert all(len(path.name) == 64 for path in blobs)
    fleet.release(fleet.publish_model(version="2.0.0"))
    poll(config)
    assert serving(config) == "2.0.0"


def test_rings(fleet: Fleet) -> None:
    one, two = fleet.publish_model(), fleet.publish_model(version="2.0.0")
    canary = Ring("canary", Selector({"ring": "canary"}), SoakSettings(), (two,))
    stable = Ring("stable", Selector({"site": "here"}), SoakSettings(), (one,))
    fleet.release(rings=(canary, stable))
    first = fleet.config("first", device={"id": "first", "labels": {"ring": "canary"}})
    second = fleet.config("second", device={"id": "second", "labels": {"site": "here"}})
    third = fleet.config("third")
    assert poll(first).ring == "canary"
    assert poll(second).ring == "stable"
    assert poll(third).result == "unassigned"
    assert [serving(config) for config in (first, second, third)] == ["2.0.0", "1.0.0", None]
    # A label that changed makes the same release another question.
    moved = fleet.config("second", device={"id": "second", "labels": {"ring": "canary"}})
    assert poll(moved).result == "updated"
    assert serving(moved) == "2.0.0"


def test_variants_and_a_device_that_none_fits(fleet: Fleet) -> None:
    pi = ModelOptions("raspberry-pi-5", ARM64, {"family": "raspberry-pi"})
    jetson = ModelOptions(
        "jetson-orin-nano",
        ARM64,
        {
            "family": "jetson",
            "accelerators": ["gpu"],
            "providers": ["TensorrtExecutionProvider", "CPUExecutionProvider"],
            "latency": 1e-9,
            "peakMemory": 1,
        },
    )
    fleet.release(fleet.publish_model(options=[pi, jetson]))
    for name in ("raspberry-pi-5", "jetson-orin-nano"):
        config = fleet.config(name, facts={"simulate": name})
        poll(config)
        report = status(config)
        assert report["slot"]["models"][0]["target"] == name
        assert report["simulated"] == name
        # The host's latency is far over the limit, and says nothing about a simulated device.
        assert report["warmup"]["models"]["brightness"]["simulated"] is True
    error = refused(fleet.config("here"))
    assert isinstance(error, IncompatibleError)
    assert "raspberry-pi-5: it is for linux/arm64" in error.message
    assert not list((fleet.directory / "here" / "state").glob("blobs/sha256/*"))


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (ModelOptions(golden_off=True), "is expected; it differs by"),
        (ModelOptions(broken=True), "not an ONNX model"),
        (ModelOptions(requires={"family": "server", "latency": 1e-9}), "p99 latency"),
        (ModelOptions(requires={"family": "server", "peakMemory": 1 << 20}), "of memory"),
    ],
)
def test_an_unhealthy_model_is_never_switched_to(
    fleet: Fleet, options: ModelOptions, problem: str
) -> None:
    config = fleet.config()
    fleet.release(fleet.publish_model())
    poll(config)
    bad = fleet.publish_model(version="2.0.0", options=options)
    fleet.release(bad)
    error = refused(config)
    assert isinstance(error, HealthError)
    assert problem in error.message
    assert serving(config) == "1.0.0"
    assert status(config)["previous"] is None
    # Remembered by slot and by the culprit's manifest, also in another combination.
    assert {failed["kind"] for failed in status(config)["failed"]} == {"slot", "manifest"}
    fleet.release(bad, fleet.publish_model("other"))
    assert "failed on this device before" in refused(config).message
    assert serving(config) == "1.0.0"


def test_a_failing_soak_rolls_back_and_is_remembered(fleet: Fleet) -> None:
    samples = write_samples(fleet.directory / "samples")
    config = fleet.config(samples={"brightness": str(samples)}, facts=SIMULATED)
    soak = SoakSettings(0, 0.01, {"brightness": 0.9})
    fleet.release(fleet.publish_model(), soak=soak)
    poll(config)
    wrong = fleet.publish_model(version="2.0.0", options=ModelOptions(wrong=True))
    fleet.release(wrong, soak=soak)
    assert "gets 0.0% of the labelled samples right" in refused(config).message
    assert serving(config) == "1.0.0"
    # Nothing new: still the same answer, and nothing is tried.
    events = len(status(config)["history"])
    assert "gets 0.0%" in refused(config).message
    assert len(status(config)["history"]) == events
    # Released again with other settings: the digest is what is remembered.
    fleet.release(wrong)
    assert "failed on this device before" in refused(config).message
    # Nor does the loss of the database bring it back.
    known = status(config)["failed"]
    lose_the_database(config)
    assert "failed on this device before: brightness gets 0.0%" in refused(config).message
    assert [item["digest"] for item in status(config)["failed"]] == [
        item["digest"] for item in known
    ]
    fleet.release(fleet.publish_model(version="2.0.1"), soak=soak)
    assert poll(config).result == "updated"


def test_a_first_install_that_fails_leaves_nothing(fleet: Fleet) -> None:
    samples = write_samples(fleet.directory / "samples")
    config = fleet.config(samples={"brightness": str(samples)})
    soak = SoakSettings(0, 0.01, {"brightness": 0.9})
    fleet.release(fleet.publish_model(options=ModelOptions(wrong=True)), soak=soak)
    refused(config)
    assert status(config)["slot"] is None
    assert status(config)["failed"]
    assert not list((config.state / "slots").iterdir())


def test_unusable_samples_are_no_fault_of_the_model(fleet: Fleet) -> None:
    samples = write_samples(fleet.directory / "samples")
    (samples / "labels.csv").write_text("file,label\nmissing.png,dark\n")
    config = fleet.config(samples={"brightness": str(samples)}, facts=SIMULATED)
    model = fleet.publish_model()
    fleet.release(model, soak=SoakSettings(0, 0.01, {"brightness": 0.9}))
    assert "samples are not usable" in refused(config).message
    assert status(config)["failed"] == []
    assert status(config)["slot"] is None
    (samples / "missing.png").write_bytes(picture(bright=False)[:60])  # cut short
    assert "samples are not usable: sample missing.png" in refused(config).message
    assert status(config)["failed"] == []


def test_what_is_gone_comes_back_with_the_next_poll(fleet: Fleet) -> None:
    """Though no release asks for anything new."""
    config = fleet.config(facts=SIMULATED)
    fleet.release(fleet.publish_model())
    with open_device(config, Event()) as (device, _):
        Update(device).poll()
        (config.state / "current").unlink()
        for gone in ("slots", "."):
            Update(device).poll()
            assert serving(config) == "1.0.0"
            assert device.is_whole()
            shutil.rmtree(config.state / gone)
        Update(device).poll()
        assert device.is_whole()


def test_a_first_install_whose_database_is_lost_proves_itself_again(fleet: Fleet) -> None:
    config = fleet.config(facts=SIMULATED)
    fleet.release(fleet.publish_model())
    poll(config)
    slot = read_link(config.state, "current")
    assert slot is not None
    mark = slot_path(config.state, slot) / "committed"
    mark.unlink()
    lose_the_database(config)
    poll(config)
    assert mark.exists()
    assert read_link(config.state, "current") == slot
    assert status(config)["previous"] is None


def test_freeze_keeps_serving_and_says_stale(tmp_path: Path) -> None:
    registry = LayoutStore(tmp_path / "registry")
    fleet = Fleet(tmp_path, registry, expiry=Expiry(timestamp=2.0))
    config = fleet.config(facts=SIMULATED)
    fleet.release(fleet.publish_model())
    poll(config)
    time.sleep(2.1)
    outcome = poll(config)
    assert (outcome.result, outcome.stale) == ("up-to-date", True)
    assert status(config)["stale"] is True
    assert serving(config) == "1.0.0"
    # A device that never saw it fresh refuses, and says what to do.
    error = refused(fleet.config("late"))
    assert error.code == "trust-expired"
    assert "trust refresh" in str(error.hint)
    TrustRepository(registry, tmp_path / "trust", password=lambda: b"tests").refresh()
    assert poll(config).stale is False


def test_an_older_release_replayed_is_refused(fleet: Fleet) -> None:
    """The registry is set back to an earlier, once valid state."""
    config = fleet.config()
    fleet.release(fleet.publish_model())
    poll(config)
    shutil.copytree(fleet.directory / "registry" / "trust", fleet.directory / "earlier")
    fleet.release(fleet.publish_model(version="2.0.0"))
    poll(config)
    shutil.rmtree(fleet.directory / "registry" / "trust")
    shutil.copytree(fleet.directory / "earlier", fleet.directory / "registry" / "trust")
    assert refused(config).code == "trust-refused"
    assert serving(config) == "2.0.0"


# -- processes ---------------------------------------------------------------------------------


def edgectl(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [EDGECTL, "agent", *arguments]
    return subprocess.run(command, check=False, capture_output=True, text=True)


def test_the_command_line(fleet: Fleet) -> None:
    device = str(fleet.device())
    assert edgectl("once", "--config", device).returncode == NotFoundError.exit_code
    fleet.release(fleet.publish_model())
    once = edgectl("once", "--config", device, "-o", "json")
    assert once.returncode == 0, once.stderr
    assert json.loads(once.stdout)["result"] == "updated"
    assert all(" level=" in line for line in once.stderr.splitlines())
    assert "up to date" in edgectl("once", "--config", device).stdout
    value = json.loads(edgectl("status", "--config", device, "-o", "json").stdout)
    assert value["state"] == "idle"
    assert "brightness 1.0.0 for server-amd64" in edgectl("status", "--config", device).stdout
    bad = fleet.publish_model(version="2.0.0", options=ModelOptions(golden_off=True))
    fleet.release(bad)
    failing = edgectl("once", "--config", device)
    assert failing.returncode == HealthError.exit_code
    assert "Next:" in failing.stderr
    assert "Traceback" not in failing.stderr


def test_a_second_agent_is_locked_out(fleet: Fleet) -> None:
    config = fleet.config()
    with lock(config.state):
        assert isinstance(refused(config), BusyError)
        result = edgectl("once", "--config", str(fleet.device()))
        assert result.returncode == BusyError.exit_code
        assert "another agent" in result.stderr


def test_run_follows_releases_until_it_is_told_to_stop(fleet: Fleet) -> None:
    fleet.release(fleet.publish_model())
    device = fleet.device(poll={"interval": "200ms"})
    config = fleet.config(poll={"interval": "200ms"})
    command = [EDGECTL, "agent", "run", "--config", str(device)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            wait_for(lambda: serving(config) == "1.0.0")
            fleet.release(fleet.publish_model(version="2.0.0"))
            wait_for(lambda: serving(config) == "2.0.0")
            process.send_signal(signal.SIGTERM)
            _, log = process.communicate(timeout=30)
        finally:
            if process.poll() is None:
                process.kill()
    assert process.returncode == 0
    assert "result=updated" in log
    assert log.rstrip().endswith("stopped")


def test_told_to_stop_on_probation_it_rolls_back(fleet: Fleet) -> None:
    config = fleet.config()
    fleet.release(fleet.publish_model())
    poll(config)
    with running("--state", str(config.state)) as server:
        server.wait_ready()
        changes: dict[str, Any] = {"server": {"url": f"http://{server.address}"}}
        config, device = fleet.config(**changes), fleet.device(**changes)
        fleet.release(fleet.publish_model(version="2.0.0"), soak=SoakSettings(duration=600))
        command = [EDGECTL, "agent", "run", "--config", str(device)]
        with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
            try:
                wait_for(lambda: status(config)["state"] == "soak")
                assert serving(config) == "2.0.0"
                process.send_signal(signal.SIGTERM)
                assert process.wait(30) == 0
            finally:
                if process.poll() is None:
                    process.kill()
        assert serving(config) == "1.0.0"
        assert status(config)["failed"] == []


def wait_for(reached: Any, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not reached():
        assert time.monotonic() < deadline, "it did not come to that"
        time.sleep(0.05)


# -- with a server -----------------------------------------------------------------------------


def test_with_a_server(fleet: Fleet) -> None:
    samples = write_samples(fleet.directory / "samples")
    state = fleet.directory / "device-1" / "state"
    state.mkdir(parents=True)
    soak = SoakSettings(0.5, 0.01, {"brightness": 0.9})
    with running("--state", str(state)) as server:
        client = ServerClient(f"http://{server.address}")
        config = fleet.config(
            server={"url": f"http://{server.address}"}, samples={"brightness": str(samples)}
        )
        fleet.release(fleet.publish_model(), soak=soak)
        poll(config)
        assert ask(client, "1.0.0") == "bright"
        fleet.release(fleet.publish_model(version="2.0.0"), soak=soak)
        poll(config)
        assert ask(client, "2.0.0") == "bright"
        wrong = fleet.publish_model(version="3.0.0", options=ModelOptions(wrong=True))
        fleet.release(wrong, soak=soak)
        assert "gets 0.0%" in refused(config).message
        assert ask(client, "2.0.0") == "bright"
        current = read_link(config.state, "current")
        assert current is not None
        assert client.status().slot == current.hex


def test_a_rollback_reaches_a_device_that_is_on_probation(fleet: Fleet) -> None:
    """A probation may last a day; the operator need not wait for its end."""
    one, two = fleet.publish_model(), fleet.publish_model(version="2.0.0")
    fleet.release(one)
    poll(fleet.config())
    with running("--state", str(fleet.config().state)) as server:
        server.wait_ready()
        config = fleet.config(
            server={"url": f"http://{server.address}"}, poll={"interval": "200ms"}
        )
        fleet.release(two, soak=SoakSettings(duration=600))
        caught: list[EdgectlError] = []
        device = Thread(target=lambda: caught.append(refused(config)))
        device.start()
        wait_for(lambda: status(config)["state"] == "soak")
        fleet.trust.refresh()  # newer metadata of the same release changes nothing
        fleet.release(one)
        device.join(60)
        assert [error.code for error in caught] == ["superseded"]
        assert serving(config) == "1.0.0"
        assert status(config)["failed"] == []
        assert poll(config).generation == 3


def ask(client: ServerClient, version: str) -> str:
    return client.classify("brightness", version, "image", "scores", picture(bright=True))


def test_a_server_that_is_away_is_no_reason_to_switch(fleet: Fleet) -> None:
    config = fleet.config()
    fleet.release(fleet.publish_model())
    poll(config)
    away = fleet.config(server={"url": "http://127.0.0.1:9"})
    fleet.release(fleet.publish_model(version="2.0.0"))
    for _ in range(4):
        assert isinstance(refused(away), ServerUnavailableError)
    assert serving(config) == "1.0.0"
    assert status(config)["failed"] == []
    assert poll(config).result == "updated"
