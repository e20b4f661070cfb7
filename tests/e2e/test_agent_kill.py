"""SIGKILL at every persisted transition: the old or the new model serves, and it converges."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from threading import Event

import pytest

from edgectl.agent.failure import CRASHES_ALLOWED
from edgectl.agent.loop import poll_once
from edgectl.agent.machine import State
from edgectl.agent.report import status
from edgectl.agent.state import FILE
from edgectl.engine.modeldir import ModelDirectory
from edgectl.errors import EdgectlError, HealthError
from edgectl.oci.layout import LayoutStore
from edgectl.serve.slot import model_path, read_link, read_slot, slot_path
from edgectl.trust.release import SoakSettings
from tests.support.fleet import Fleet, ModelOptions, write_samples

ROOT = Path(__file__).parents[2]
UPDATE = (
    State.CHECK,
    State.RESOLVE,
    State.DOWNLOAD,
    State.VERIFY,
    State.STAGE,
    State.COMPILE,
    State.WARMUP,
    State.SWITCH,
    State.SOAK,
    State.COMMIT,
    State.CLEANUP,
    State.IDLE,
)


@pytest.fixture
def fleet(tmp_path: Path) -> Fleet:
    return Fleet(tmp_path, LayoutStore(tmp_path / "registry"))


def die(device: Path, state: State) -> None:
    """Run an agent that is killed when it has persisted a state."""
    command = [sys.executable, "-m", "tests.support.dying_agent", str(device), state]
    result = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True)
    assert result.returncode == -signal.SIGKILL, result.stderr


def loadable_version(state: Path) -> str:
    """The version that a server would serve now: `current` leads to a slot whose model loads."""
    digest = read_link(state, "current")
    assert digest is not None
    slot = read_slot(slot_path(state, digest))
    (entry,) = slot.models
    ModelDirectory.open(model_path(state, digest, entry.name)).load().close()
    return entry.version


@pytest.mark.slow
@pytest.mark.parametrize("state", UPDATE)
def test_killed_during_an_update(fleet: Fleet, state: State) -> None:
    device, config = fleet.device(), fleet.config()
    fleet.release(fleet.publish_model())
    poll_once(config, Event())
    fleet.release(fleet.publish_model(version="2.0.0"))
    die(device, state)
    expected = "2.0.0" if state in {State.COMMIT, State.CLEANUP, State.IDLE} else None
    assert loadable_version(config.state) in {expected or "1.0.0", "2.0.0"}
    poll_once(config, Event())
    assert loadable_version(config.state) == "2.0.0"
    assert status(config)["state"] == "idle"
    assert status(config)["failed"] == []
    assert len(list((config.state / "slots").iterdir())) == 2


@pytest.mark.slow
@pytest.mark.parametrize("state", UPDATE[2:])
def test_killed_during_the_first_install(fleet: Fleet, state: State) -> None:
    device, config = fleet.device(), fleet.config()
    fleet.release(fleet.publish_model())
    die(device, state)
    poll_once(config, Event())
    assert loadable_version(config.state) == "1.0.0"


@pytest.mark.slow
@pytest.mark.parametrize("state", [State.ROLLBACK, State.FAILED])
def test_killed_during_a_rollback(fleet: Fleet, state: State) -> None:
    samples = {"brightness": str(write_samples(fleet.directory / "samples"))}
    device, config = fleet.device(samples=samples), fleet.config(samples=samples)
    soak = SoakSettings(0, 0.01, {"brightness": 0.9})
    fleet.release(fleet.publish_model(), soak=soak)
    poll_once(config, Event())
    wrong = fleet.publish_model(version="2.0.0", options=ModelOptions(wrong=True))
    fleet.release(wrong, soak=soak)
    die(device, state)
    with pytest.raises(HealthError):
        poll_once(config, Event())
    assert loadable_version(config.state) == "1.0.0"
    assert status(config)["failed"]
    assert status(config)["state"] == "idle"


@pytest.mark.slow
def test_a_slot_that_crashes_the_device_is_given_up(fleet: Fleet) -> None:
    device, config = fleet.device(), fleet.config()
    fleet.release(fleet.publish_model())
    poll_once(config, Event())
    fleet.release(fleet.publish_model(version="2.0.0"))
    for _ in range(CRASHES_ALLOWED):
        die(device, State.SOAK)
    with pytest.raises(HealthError, match="failed on this device before"):
        poll_once(config, Event())
    assert loadable_version(config.state) == "1.0.0"
    assert "crashed 3 times" in status(config)["failed"][0]["reason"]


@pytest.mark.slow
@pytest.mark.parametrize("damage", ["missing", "corrupt"])
@pytest.mark.parametrize("state", [State.IDLE, State.SOAK])
def test_the_database_is_lost(fleet: Fleet, state: State, damage: str) -> None:
    """What has proven itself goes on serving; what was on probation gives way."""
    device, config = fleet.device(), fleet.config()
    fleet.release(fleet.publish_model())
    poll_once(config, Event())
    fleet.release(fleet.publish_model(version="2.0.0"))
    die(device, State.CLEANUP if state is State.IDLE else State.COMMIT)
    if state is State.SOAK:  # killed after SOAK was done and before the slot was marked
        assert loadable_version(config.state) == "2.0.0"
    for path in config.state.glob(f"{FILE}*"):
        if damage == "missing":
            path.unlink()
        else:
            path.write_bytes(os.urandom(5000))
    poll_once(config, Event())
    assert loadable_version(config.state) == "2.0.0"
    messages = [event["message"] for event in status(config)["history"]]
    assert any(damage in message for message in messages)
    assert ("rolled back" in messages) == (state is State.SOAK)


@pytest.mark.slow
def test_a_state_of_a_newer_agent_rolls_back(fleet: Fleet) -> None:
    import sqlite3

    device, config = fleet.device(), fleet.config()
    fleet.release(fleet.publish_model())
    poll_once(config, Event())
    fleet.release(fleet.publish_model(version="2.0.0"))
    die(device, State.SOAK)
    connection = sqlite3.connect(config.state / FILE)
    with connection:
        connection.execute("UPDATE operation SET state = 'migrate'")
    connection.close()
    try:
        poll_once(config, Event())
    except EdgectlError as error:
        pytest.fail(f"it did not converge: {error}")
    assert "rolled back" in [event["message"] for event in status(config)["history"]]
    assert loadable_version(config.state) == "2.0.0"
