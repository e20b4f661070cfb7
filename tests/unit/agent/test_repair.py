"""A slot that had proven itself is damaged, and made again."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace
from threading import Event
from typing import TYPE_CHECKING

import pytest

from edgectl.agent.device import open_device
from edgectl.agent.update import Update
from edgectl.errors import ServerUnavailableError
from edgectl.oci.layout import LayoutStore
from edgectl.serve.slot import read_link, slot_path
from edgectl.trust.release import SoakSettings
from tests.support.fleet import Fleet
from tests.support.polling import poll, serving
from tests.support.scripted import AWAY, Answer, scripted

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from edgectl.agent.config import DeviceConfig


@pytest.fixture
def config(tmp_path: Path) -> DeviceConfig:
    """A device with two versions on it, of which the newer, which runs, is damaged."""
    fleet = Fleet(tmp_path, LayoutStore(tmp_path / "registry"))
    config = fleet.config(
        facts={"simulate": "server-amd64"}, limits={"switch": "1ms", "reserve": "1Mi"}
    )
    for version in ("1.0.0", "2.0.0"):
        fleet.release(fleet.publish_model(version=version), soak=SoakSettings(duration=600.0))
        poll(config)
    (config.state / "current" / "slot.json").write_bytes(b"")
    return config


@contextmanager
def device(config: DeviceConfig, answers: list[Answer]) -> Iterator[Update]:
    """The update of a device whose server says one thing after the other."""
    with scripted(answers) as server, open_device(config, Event()) as (opened, _):
        yield Update(replace(opened, server=server))


def says(config: DeviceConfig, state: str) -> Answer:
    current = read_link(config.state, "current")
    assert current is not None
    slot = {"slot": current.hex, "wanted": current.hex, "state": state, "error": None}
    return 200, slot | {"requests": 0, "errors": 0}


def test_it_has_nothing_more_to_prove(config: DeviceConfig) -> None:
    """The server is asked before the warm-up and twice for the switch, and is not watched."""
    previous = read_link(config.state, "previous")
    ready, failed = says(config, "ready"), says(config, "failed")
    with device(config, [ready, ready, ready, failed]) as update:
        assert update.poll().result == "up-to-date"
    assert serving(config) == "2.0.0"
    assert read_link(config.state, "previous") == previous


def test_a_rollback_leads_to_itself(config: DeviceConfig) -> None:
    """Where the server goes away as it switches, what served is what serves again."""
    current, previous = (read_link(config.state, link) for link in ("current", "previous"))
    answers = [says(config, "ready"), AWAY]
    with device(config, answers) as update, pytest.raises(ServerUnavailableError):
        update.poll()
    assert read_link(config.state, "current") == current
    assert read_link(config.state, "previous") == previous
    assert current is not None
    assert (slot_path(config.state, current) / "committed").exists()
