"""What doctor says of a toolchain that is there, one that can be made, and one that cannot."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from edgectl.build import toolchain
from edgectl.build.builder import load_builder
from edgectl.build.doctor import diagnose
from edgectl.errors import ToolchainError
from tests.support.builders import make_builder

if TYPE_CHECKING:
    from pathlib import Path

NOWHERE = "edgectl-of-nowhere==1.0 --hash=sha256:" + "0" * 64 + "\n"


def test_each_state_is_told_and_nothing_is_made(tmp_path: Path) -> None:
    can = make_builder(tmp_path / "builders", "", name="can")
    cannot = make_builder(tmp_path / "builders", "", name="cannot", lock=NOWHERE)
    cache = tmp_path / "cache"
    first = diagnose([can, cannot], cache=cache)
    assert [each.state for each in first] == ["installable", "impossible"]
    assert "edgectl-of-nowhere" in first[1].reason
    assert first[1].hint
    assert not list(cache.rglob("*"))
    toolchain.prepare(can, cache=cache)
    assert [each.state for each in diagnose([can], cache=cache)] == ["ready"]


def test_without_uv_nothing_can_be_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def absent() -> str:
        raise ToolchainError("uv is not installed", hint="pip install 'edgectl[build]'")

    monkeypatch.setattr(toolchain, "find_uv", absent)
    (found,) = diagnose([make_builder(tmp_path, "")], cache=tmp_path / "cache")
    assert (found.state, found.reason) == ("impossible", "uv is not installed")


def test_what_a_builder_leaves_to_the_device_is_of_its_actions(tmp_path: Path) -> None:
    builder = make_builder(tmp_path, "")
    spec = builder.directory / "builder.yaml"
    text = spec.read_text()
    spec.write_text(text + "leaves: {import: it must be so}\n")
    assert load_builder(builder.directory).leaves == {"import": "it must be so"}
    spec.write_text(text + "leaves: {evaluate: it has none}\n")
    with pytest.raises(ToolchainError, match="leaves is not a mapping"):
        load_builder(builder.directory)
