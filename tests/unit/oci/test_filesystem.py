"""Reading with a bound."""

from __future__ import annotations

import io
import tracemalloc
from typing import TYPE_CHECKING

import pytest

from edgectl.oci.filesystem import read_at_most

if TYPE_CHECKING:
    from pathlib import Path

_CONTENT = bytes(range(256)) * 1024


@pytest.mark.parametrize("limit", [0, 1, 1 << 16, (1 << 16) + 1, len(_CONTENT), 1 << 30])
def test_no_more_than_the_limit_is_read(limit: int) -> None:
    file = io.BytesIO(_CONTENT)
    assert read_at_most(file, limit) == _CONTENT[:limit]
    assert file.tell() == min(limit, len(_CONTENT))


def test_a_small_file_takes_little_memory_whatever_the_limit(tmp_path: Path) -> None:
    """A device that may not promise more memory than it has refuses the room for the limit."""
    path = tmp_path / "index.json"
    path.write_bytes(b"{}")
    tracemalloc.start()
    with path.open("rb") as file:
        data = read_at_most(file, 256 << 20)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert data == b"{}"
    assert peak < 1 << 20
