"""What an update does about a memory that is lost, a disk that refuses, and being told to stop."""

from __future__ import annotations

import shutil
from dataclasses import replace
from threading import Event
from typing import TYPE_CHECKING, Any, NoReturn

import pytest

from edgectl.agent.device import open_device
from edgectl.agent.failure import CRASHES_ALLOWED, RememberedError
from edgectl.agent.loop import poll_once
from edgectl.agent.machine import State
from edgectl.agent.report import status
from edgectl.agent.server import BusyServerError, Server, SlotStatus
from edgectl.agent.slots import SlotStore
from edgectl.agent.state import FILE, StateStore
from edgectl.agent.stopping import Stopped
from edgectl.agent.update import Update
from edgectl.errors import EdgectlError, NotFoundError, StorageError, StorageFullError
from edgectl.oci.layout import LayoutStore
from edgectl.serve.slot import read_link, slot_path
from edgectl.trust.release import SoakSettings
from tests.support.fleet import Fleet, ModelOptions, write_samples
from tests.support.polling import poll, refused, serving

if TYPE_CHECKING:
    from pathlib import Path

    from edgectl.agent.config import DeviceConfig
    from edgectl.agent.device import Device
    from edgectl.agent.state import Operation
    from edgectl.digest import Digest

SIMULATED = {"simulate": "server-amd64"}
ACCURATE = SoakSettings(0, 0.01, {"brightness": 0.9})


@pytest.fixture
def fleet(tmp_path: Path) -> Fleet:
    """A fleet whose device runs 1.0.0."""
    fleet = Fleet(tmp_path, LayoutStore(tmp_path / "registry"))
    fleet.release(fleet.publish_model())
    poll(fleet.config(facts=SIMULATED))
    return fleet


# -- a memory that is lost ---------------------------------------------------------------------


def empty_the_database(state: Path) -> None:
    for path in state.glob(f"{FILE}*"):
        path.unlink()
    (state / FILE).touch()


def lose_power_before_it_is_adopted(state: Path) -> None:
    for path in state.glob(f"{FILE}*"):
        path.unlink()
    memory, _ = StateStore.open(state)
    memory.close()


LOSSES = [empty_the_database, lose_power_before_it_is_adopted]


@pytest.mark.parametrize("lose", LOSSES)
def test_what_failed_stays_ruled_out(fleet: Fleet, lose: Any) -> None:
    config = fleet.config(facts=SIMULATED)
    fleet.release(fleet.publish_model(version="2.0.0", options=ModelOptions(golden_off=True)))
    refused(config)
    lose(config.state)
    assert isinstance(refused(config), RememberedError)


@pytest.mark.parametrize("lose", LOSSES)
def test_what_was_on_probation_gives_way(fleet: Fleet, lose: Any) -> None:
    config = fleet.config(facts=SIMULATED)
    fleet.release(fleet.publish_model(version="2.0.0"))
    poll(config)
    current = read_link(config.state, "current")
    assert current is not None
    (slot_path(config.state, current) / "committed").unlink()
    lose(config.state)
    shutil.rmtree(fleet.directory / "registry")
    assert isinstance(refused(config), NotFoundError)
    assert serving(config) == "1.0.0"


def test_a_new_device_is_adopted_once(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path, LayoutStore(tmp_path / "registry"))
    config = fleet.config(facts=SIMULATED)
    lose_power_before_it_is_adopted(config.state)
    refused(config)
    memory, lost = StateStore.open(config.state)
    memory.close()
    assert lost is None
    assert not [event for event in status(config)["history"] if "database" in event["message"]]


# -- a disk that refuses -----------------------------------------------------------------------


class StuckSlots(SlotStore):
    """Holds something that cannot be removed."""

    def prune(self) -> int:
        raise StorageError("cleaning slots: Permission denied")


def poll_stuck(config: DeviceConfig) -> str:
    with open_device(config, Event()) as (device, _):
        slots = StuckSlots(config.state, device.blobs)
        return Update(replace(device, slots=slots)).poll().result


def test_what_cannot_be_removed_keeps_no_release_away(
    fleet: Fleet, caplog: pytest.LogCaptureFixture
) -> None:
    config = fleet.config(facts=SIMULATED)
    fleet.release(fleet.publish_model(version="2.0.0"))
    assert poll_stuck(config) == "updated"
    assert "Permission denied" in caplog.text
    assert status(config)["state"] == "idle"
    fleet.release(fleet.publish_model(version="3.0.0", options=ModelOptions(golden_off=True)))
    with pytest.raises(EdgectlError, match="not healthy"):
        poll_stuck(config)
    assert status(config)["state"] == "idle"
    fleet.release(fleet.publish_model(version="4.0.0"))
    assert poll_stuck(config) == "updated"


class FullStore(StateStore):
    """Has no room from the transition to a state on."""

    state = State.IDLE
    is_full = False

    def enter(self, operation: Operation, **others: Any) -> None:
        self._require_room(operation.state is self.state)
        super().enter(operation, **others)

    def count_crash(self, slot: Digest) -> int:
        self._require_room(False)
        return super().count_crash(slot)

    def _require_room(self, filling: bool) -> None:
        self.is_full |= filling
        if self.is_full:
            raise StorageFullError("no space is left")


def store_full_at(state: State) -> type[FullStore]:
    return type("Full", (FullStore,), {"state": state})


@pytest.mark.parametrize("state", [State.SWITCH, State.COMMIT])
def test_a_full_disk_is_no_crash_of_the_slot(fleet: Fleet, state: State) -> None:
    config = fleet.config(facts=SIMULATED)
    fleet.release(fleet.publish_model(version="2.0.0"))
    for _ in range(CRASHES_ALLOWED):
        with pytest.raises(StorageFullError):
            poll_once(config, Event(), store_full_at(state))
        assert serving(config) == "1.0.0"
    assert poll(config).result == "updated"
    assert status(config)["failed"] == []


class Killed(BaseException):
    """The end of an agent that does nothing more."""


class DyingStore(StateStore):
    """Is killed when the soak begins."""

    def enter(self, operation: Operation, **others: Any) -> None:
        super().enter(operation, **others)
        if operation.state is State.SOAK:
            raise Killed


def test_a_crash_is_counted_once(fleet: Fleet) -> None:
    """However often the disk is too full to note what follows from it."""
    config = fleet.config(facts=SIMULATED)
    fleet.release(fleet.publish_model(version="2.0.0"))
    with pytest.raises(Killed):
        poll_once(config, Event(), DyingStore)
    for _ in range(CRASHES_ALLOWED):
        with pytest.raises(StorageFullError):
            poll_once(config, Event(), store_full_at(State.ROLLBACK))
    assert poll(config).result == "updated"


def test_crashes_are_counted(fleet: Fleet) -> None:
    config = fleet.config(facts=SIMULATED)
    fleet.release(fleet.publish_model(version="2.0.0"))
    for _ in range(CRASHES_ALLOWED):
        with pytest.raises(Killed):
            poll_once(config, Event(), DyingStore)
    assert isinstance(refused(config), RememberedError)
    assert serving(config) == "1.0.0"


# -- told to stop ------------------------------------------------------------------------------


def test_told_to_stop_on_probation_with_a_full_disk(fleet: Fleet) -> None:
    samples = write_samples(fleet.directory / "samples")
    config = fleet.config(facts=SIMULATED, samples={"brightness": str(samples)})
    fleet.release(fleet.publish_model(version="2.0.0"), soak=ACCURATE)
    stop = Event()

    class StoppedAndFull(store_full_at(State.ROLLBACK)):  # type: ignore[misc]
        def enter(self, operation: Operation, **others: Any) -> None:
            super().enter(operation, **others)
            if operation.state is State.SOAK:
                stop.set()

    for _ in range(CRASHES_ALLOWED):
        stop.clear()
        with pytest.raises(Stopped):
            poll_once(config, stop, StoppedAndFull)
        assert serving(config) == "1.0.0"
        with open_device(config, Event()) as (device, _):
            Update(device).recover()
    assert poll(config).result == "updated"


# -- a server that is busy ---------------------------------------------------------------------


class BusyServer(Server):
    """Serves what is linked, and has no time for samples."""

    def __init__(self, device: Device) -> None:
        super().__init__("http://127.0.0.1:1")
        self._slots = device.slots

    def status(self) -> SlotStatus:
        slot = self._slots.linked("current")
        name = None if slot is None else slot.hex
        return SlotStatus(name, name, "ready", None, 0, 0)

    def classify(self, *_: Any) -> NoReturn:
        raise BusyServerError("the inference server is busy: the queue is full")


def test_a_busy_server_is_no_crash_of_the_slot(fleet: Fleet) -> None:
    samples = write_samples(fleet.directory / "samples")
    config = fleet.config(
        facts=SIMULATED, samples={"brightness": str(samples)}, limits={"switch": "1ms"}
    )
    fleet.release(fleet.publish_model(version="2.0.0"), soak=ACCURATE)
    for _ in range(CRASHES_ALLOWED):
        with open_device(config, Event()) as (device, _), pytest.raises(BusyServerError):
            Update(replace(device, server=BusyServer(device))).poll()
        assert serving(config) == "1.0.0"
    assert status(config)["failed"] == []
    assert poll(config).result == "updated"
