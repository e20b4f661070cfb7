from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from edgectl.agent import marks
from edgectl.agent.state import Failed
from edgectl.digest import Digest
from edgectl.errors import StorageError

if TYPE_CHECKING:
    from pathlib import Path

A, B = sorted(Digest.of(name) for name in (b"a", b"b"))
FAILED = (
    Failed(A, "slot", "it crashed \N{COLLISION SYMBOL}", 10),
    Failed(B, "manifest", "bad", 11),
)


def test_what_is_kept_is_recalled(tmp_path: Path) -> None:
    assert marks.recall(tmp_path) == ()
    marks.keep(tmp_path, FAILED[:1])
    marks.keep(tmp_path, FAILED)
    assert marks.recall(tmp_path) == FAILED


def test_the_first_reason_stays(tmp_path: Path) -> None:
    marks.keep(tmp_path, FAILED)
    marks.keep(tmp_path, [Failed(A, "slot", "another", 20)])
    assert marks.recall(tmp_path) == FAILED


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b'{"kind":1}', b"\xff" * 100])
def test_a_damaged_mark_still_rules_out_its_digest(tmp_path: Path, damage: bytes) -> None:
    marks.keep(tmp_path, FAILED)
    (tmp_path / "failed" / A.hex).write_bytes(damage)
    (tmp_path / "failed" / ".edgectl-left").write_bytes(b"x")
    first, second = marks.recall(tmp_path)
    assert (first.digest, first.kind) == (A, "slot")
    assert second == FAILED[1]


def test_a_place_that_refuses(tmp_path: Path) -> None:
    (tmp_path / "failed").touch()
    with pytest.raises(StorageError, match="writing to"):
        marks.keep(tmp_path, FAILED)
