from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from edgectl.agent.config import DeviceConfig
from edgectl.agent.report import status
from edgectl.agent.state import FILE
from edgectl.oci.reference import RegistryLocation
from edgectl.serve.slot import read_link, slot_path, switch_link
from tests.support.slots import make_slot

if TYPE_CHECKING:
    from pathlib import Path


def config(state: Path) -> DeviceConfig:
    location = RegistryLocation("nowhere", is_layout=True)
    return DeviceConfig("nuc-01", {}, "shopfloor", location, state, state / "root.json", ())


def test_a_new_device(tmp_path: Path) -> None:
    value = status(config(tmp_path / "state"))
    assert (value["slot"], value["state"], value["history"]) == (None, "idle", [])


def test_a_damaged_database_is_reported_and_hides_nothing(tmp_path: Path) -> None:
    digest = make_slot(tmp_path)
    assert status(config(tmp_path))["problem"] is None
    (tmp_path / FILE).write_bytes(b"nonsense" * 100)
    value = status(config(tmp_path))
    assert "cannot be read" in value["problem"]
    assert value["slot"]["digest"] == str(digest)


def test_links_that_lead_nowhere_are_reported_and_hide_nothing(tmp_path: Path) -> None:
    """What is broken is when somebody looks."""
    make_slot(tmp_path)
    digest = read_link(tmp_path, "current")
    assert digest is not None
    switch_link(tmp_path, "previous", digest)
    assert status(config(tmp_path))["previous"]["models"][0]["name"] == "digits"
    shutil.rmtree(slot_path(tmp_path, digest))
    (tmp_path / "previous").unlink()
    (tmp_path / "previous").write_text("x")
    value = status(config(tmp_path))
    assert value["slot"]["digest"] == str(digest)
    assert "reading" in value["slot"]["error"]
    assert value["slot"]["models"] == []
    assert "not a symlink" in value["previous"]["error"]
