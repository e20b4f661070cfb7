"""Toy projects, and one toolchain cache for all of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.toy import ToyProject

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="session")
def toolchains(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the environment of the toy builder is made once."""
    return tmp_path_factory.mktemp("toolchains")


@pytest.fixture
def project(tmp_path: Path, toolchains: Path, monkeypatch: pytest.MonkeyPatch) -> ToyProject:
    """A toy project with release metadata, nothing applied."""
    monkeypatch.setenv("EDGECTL_CACHE", str(toolchains))
    made = ToyProject(tmp_path / "repo")
    made.init_trust()
    return made
