from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from edgectl.agent import trial
from edgectl.errors import StorageError

if TYPE_CHECKING:
    from pathlib import Path


def test_cut_short_until_it_ends(tmp_path: Path) -> None:
    assert not trial.was_cut_short(tmp_path)
    trial.end(tmp_path)
    for _ in range(2):
        trial.begin(tmp_path)
        assert trial.was_cut_short(tmp_path)
    trial.end(tmp_path)
    assert not trial.was_cut_short(tmp_path)


def test_a_file_system_that_refuses(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="trying"):
        trial.begin(tmp_path / "missing")
    (tmp_path / "trying").mkdir()
    with pytest.raises(StorageError, match="trying"):
        trial.end(tmp_path)
