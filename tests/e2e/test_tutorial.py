"""The tutorial is typed as it stands: every file saved, every command run, in its order."""

from __future__ import annotations

import json
import re
import socket
from typing import TYPE_CHECKING

import pytest

from tests.support.page import type_page

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.slow


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def test_it_works_as_it_is_written(tmp_path: Path) -> None:
    done = type_page("tutorial.md", tmp_path, port=free_port())
    for told in (
        "valid (models: 1",
        "Plan: 2 to create",
        "Nothing to apply.",
        "nuc-01: updated; runs slot",
        "ring canary: digits 1.0.0 -> 1.1.0",
        "rollback to generation 1",
        "gets intel-nuc",
        "verified oci-layout:../registry\n",
    ):
        assert told in done.stdout
    assert "digits gets 0.0% of the labelled samples right on this device" in done.stderr
    answer = re.search(r'^\{"model_name".*?\}\]\}', done.stdout, re.MULTILINE)
    assert answer is not None
    scores = json.loads(answer[0])["outputs"][0]["data"]
    assert scores.index(max(scores)) == 5, "the picture of a five"
