from __future__ import annotations

import time
from contextlib import closing
from pathlib import Path
from threading import Event, Thread

import pytest

from edgectl.agent.config import DeviceConfig
from edgectl.agent.lock import lock
from edgectl.agent.loop import next_delay, run
from edgectl.agent.machine import State
from edgectl.agent.state import Operation, PollRecord, StateStore
from edgectl.digest import Digest
from edgectl.oci.layout import LayoutStore
from edgectl.oci.reference import RegistryLocation
from edgectl.serve.slot import read_link
from tests.support.fleet import Fleet
from tests.support.slots import make_slot

BAD = Digest.of(b"bad")


@pytest.fixture
def config(tmp_path: Path) -> DeviceConfig:
    return DeviceConfig(
        "nuc-01", {}, "shopfloor", RegistryLocation(str(tmp_path / "registry"), is_layout=True),
        tmp_path / "state", tmp_path / "root.json", (), simulate="intel-nuc",
    )  # fmt: skip


def interrupted(state: Path) -> Digest:
    """A device whose agent was killed while it rolled back; what is to serve again."""
    state.mkdir()
    good = make_slot(state, current=False)
    memory, _ = StateStore.open(state)
    with closing(memory):
        memory.enter(Operation(State.ROLLBACK, BAD, good))
    return good


def test_told_to_stop_while_it_recovers(config: DeviceConfig) -> None:
    """It ends as it should, and what is not done yet is done by the next one."""
    good = interrupted(config.state)
    stop = Event()
    stop.set()
    away = DeviceConfig(
        config.device, {}, config.fleet, config.registry, config.state, config.root, (),
        simulate="intel-nuc", server="http://127.0.0.1:9",
    )  # fmt: skip
    run(away, stop)
    assert read_link(config.state, "current") == good


def test_a_recovery_that_fails_is_tried_again_soon(config: DeviceConfig) -> None:
    """Not after the whole interval: a model that has proven nothing may be serving."""
    good = interrupted(config.state)
    (config.state / "current").mkdir()
    (config.state / "current" / "in the way").touch()
    stop = Event()
    agent = Thread(target=run, args=(config, stop))
    agent.start()
    try:
        time.sleep(0.5)
        assert agent.is_alive()
        (config.state / "current" / "in the way").unlink()
        (config.state / "current").rmdir()
        deadline = time.monotonic() + 60
        while read_link(config.state, "current") != good:
            assert time.monotonic() < deadline
            time.sleep(0.05)
    finally:
        stop.set()
        agent.join()


@pytest.mark.parametrize("now", [0.0, 1e9, 4e9])
def test_whatever_the_clock_says_the_next_poll_is_neither_at_once_nor_never(
    config: DeviceConfig, now: float
) -> None:
    for poll in (PollRecord(), PollRecord(attempts=3, not_before=2e9)):
        for uniform in (0.0, 1.0):
            delay = next_delay(config, poll, now, uniform)
            assert 1.0 <= delay <= config.interval * (1 + config.jitter)


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_a_thousand_idle_polls_leave_nothing_open(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path, LayoutStore(tmp_path / "registry"))
    fleet.release(fleet.publish_model())
    config = fleet.config(poll={"interval": "1us"})
    stop, polls, counts = Event(), 0, []

    class Counting(Event):
        def wait(self, timeout: float | None = None) -> bool:
            nonlocal polls
            polls += 1
            if polls % 100 == 50:
                counts.append(open_files())
            if polls == 1000:
                self.set()
            return super().wait(0)

    stop = Counting()
    run(config, stop)
    assert polls == 1000
    assert len(set(counts)) == 1
    with lock(config.state):
        pass
