"""What serves is damaged while nobody looks, and the server starts again on it."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

import pytest

from edgectl.agent.report import status
from edgectl.oci.layout import LayoutStore
from tests.support.fleet import Fleet
from tests.support.polling import poll, serving
from tests.support.server import running

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def cut_a_file_short(state: Path) -> None:
    os.truncate(state / "current" / "models" / "brightness" / "model.onnx", 100)


def lose_the_slots(state: Path) -> None:
    shutil.rmtree(state / "slots")


@pytest.mark.parametrize("damage", [cut_a_file_short, lose_the_slots])
def test_the_next_poll_repairs_it_and_the_server_loads_it(
    tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    """That the server cannot load the damaged slot says nothing about the slot."""
    fleet = Fleet(tmp_path, LayoutStore(tmp_path / "registry"))
    facts = {"simulate": "server-amd64"}
    fleet.release(fleet.publish_model())
    state = fleet.config(facts=facts).state
    poll(fleet.config(facts=facts))
    damage(state)
    with running("--state", str(state)) as server:
        server.wait_slot(lambda slot: slot["state"] == "failed")
        config = fleet.config(facts=facts, server={"url": f"http://{server.address}"})
        poll(config)
        server.wait_ready()
    assert serving(config) == "1.0.0"
    assert status(config)["failed"] == []
