from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from edgectl.agent.lock import lock
from edgectl.errors import BusyError, StorageError

if TYPE_CHECKING:
    from pathlib import Path


def test_the_second_is_told_who_holds_it(tmp_path: Path) -> None:
    holder = rf"process {os.getpid()}\b"
    with (
        lock(tmp_path / "state"),
        pytest.raises(BusyError, match=holder),
        lock(tmp_path / "state"),
    ):
        pass
    with lock(tmp_path / "state"):
        pass


def test_a_place_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError), lock(tmp_path / "file" / "state"):
        pass
