"""The real builders in their real environments, which are made once and kept in the cache."""

from __future__ import annotations

import subprocess
import tempfile
from typing import TYPE_CHECKING, Any, Protocol

import pytest

from edgectl.build import toolchain
from edgectl.build.builder import find_builder
from edgectl.build.runner import Progress, Request, Result, run
from tests.builders.pytorch_sources import MAKER

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


class Build(Protocol):
    """Runs one action of one shipped builder into a fresh directory."""

    def __call__(
        self,
        builder: str,
        action: str,
        inputs: Mapping[str, Path],
        params: Mapping[str, Any],
        progress: list[Progress] | None = None,
    ) -> Result: ...


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Build:
    def build(
        builder: str,
        action: str,
        inputs: Mapping[str, Path],
        params: Mapping[str, Any],
        progress: list[Progress] | None = None,
    ) -> Result:
        output = tmp_path_factory.mktemp(action)
        notify = None if progress is None else progress.append
        request = Request(action, "model", inputs, params, output)
        return run(find_builder(builder), request, on_progress=notify)

    return build


@pytest.fixture(scope="session")
def torch_python() -> Path:
    return toolchain.prepare(find_builder("pytorch"))


@pytest.fixture(scope="session")
def made(torch_python: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory of programs, exported by the toolchain's own PyTorch."""
    folder = tmp_path_factory.mktemp("programs")
    script = folder / "maker.py"  # a file: TorchScript reads the source of what it compiles
    script.write_text(MAKER)
    subprocess.run([str(torch_python), "-W", "ignore", str(script)], cwd=folder, check=True)
    return folder


@pytest.fixture
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary directories are made."""
    directory = tmp_path / "scratch"
    directory.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(directory))
    return directory
