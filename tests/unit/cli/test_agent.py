from __future__ import annotations

import json
from contextlib import closing
from typing import TYPE_CHECKING

from edgectl.agent.machine import State
from edgectl.agent.state import Failed, Operation, PollRecord, StateStore
from edgectl.digest import Digest
from tests.unit.cli.invoke import edgectl

if TYPE_CHECKING:
    from pathlib import Path


def test_status_says_what_went_wrong_and_what_comes_next(tmp_path: Path) -> None:
    for name in ("root.json", "cosign.pub"):
        (tmp_path / name).touch()
    device = {
        "device": {"id": "nuc-01"}, "fleet": "shopfloor", "registry": "oci-layout:registry",
        "state": "state", "trust": {"root": "root.json"}, "keys": ["cosign.pub"],
    }  # fmt: skip
    (tmp_path / "device.yaml").write_text(json.dumps(device))
    (tmp_path / "state").mkdir()
    memory, _ = StateStore.open(tmp_path / "state")
    error = {"code": "not-found", "message": "a blob is gone", "hint": "run edgectl apply"}
    with closing(memory):
        memory.enter(
            Operation(State.IDLE),
            message="it did not work",
            remember=(Failed(Digest.of(b"bad"), "slot", "it is wrong"),),
            poll=PollRecord(attempts=2, not_before=1e9, error=error, ring="canary", generation=3),
        )
    result = edgectl("agent", "status", "-c", tmp_path / "device.yaml")
    assert result.exit_code == 0, result.stdout
    for line in (
        "fleet       shopfloor, ring canary, generation 3",
        "last error  not-found: a blob is gone",
        "  Next: run edgectl apply",
        "next try    2001-09-09T01:46:40+00:00, by `edgectl agent run`",
        f"refused     slot {Digest.of(b'bad').short}: it is wrong",
    ):
        assert line in result.stdout.splitlines()
    assert result.stdout.rstrip().endswith("idle: it did not work")
