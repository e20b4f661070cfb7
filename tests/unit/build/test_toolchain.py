from __future__ import annotations

import os
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from edgectl.build import toolchain
from edgectl.build.process import CancelledError
from edgectl.errors import StorageError, ToolchainError
from tests.support.builders import make_builder

if TYPE_CHECKING:
    from pathlib import Path


def environment(cache: Path) -> Path:
    (directory,) = [path for path in (cache / "toolchains").iterdir() if path.is_dir()]
    return directory


def test_an_environment_is_made_once_and_runs(tmp_path: Path) -> None:
    builder = make_builder(tmp_path, "pass")
    said: list[str] = []
    python = toolchain.prepare(builder, cache=tmp_path / "cache", on_line=said.append)
    assert said == ["making the toy toolchain (once)"]
    done = subprocess.run([python, "-c", "print(1 + 1)"], capture_output=True, check=True)
    assert done.stdout == b"2\n"
    assert toolchain.prepare(builder, cache=tmp_path / "cache", on_line=said.append) == python
    assert len(said) == 1


def test_a_complete_environment_needs_no_uv(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    builder = make_builder(tmp_path, "pass")
    python = toolchain.prepare(builder, cache=tmp_path / "cache")
    monkeypatch.setenv("PATH", "")
    monkeypatch.setenv("UV_OFFLINE", "1")
    assert toolchain.prepare(builder, cache=tmp_path / "cache") == python


def test_another_lock_is_another_environment(tmp_path: Path) -> None:
    one = make_builder(tmp_path / "one", "pass")
    two = make_builder(tmp_path / "two", "pass", lock="# other\n")
    changed_script = make_builder(tmp_path / "three", "print()")
    assert toolchain.environment_key(one) != toolchain.environment_key(two)
    assert toolchain.environment_key(one) == toolchain.environment_key(changed_script)


def test_an_interrupted_environment_is_made_anew(tmp_path: Path) -> None:
    builder = make_builder(tmp_path, "pass")
    toolchain.prepare(builder, cache=tmp_path / "cache")
    directory = environment(tmp_path / "cache")
    (directory / ".complete").unlink()
    (directory / "half-written").touch()
    toolchain.prepare(builder, cache=tmp_path / "cache")
    assert not (directory / "half-written").exists()
    assert (directory / ".complete").exists()


def test_a_python_that_is_gone_is_replaced(tmp_path: Path) -> None:
    builder = make_builder(tmp_path, "pass")
    python = toolchain.prepare(builder, cache=tmp_path / "cache")
    python.unlink()
    python.symlink_to(tmp_path / "upgraded-away")
    assert toolchain.prepare(builder, cache=tmp_path / "cache") == python
    assert python.is_file()


def test_two_at_once_make_it_once(tmp_path: Path) -> None:
    builder = make_builder(tmp_path, "pass")
    said: list[str] = []

    def prepare(_: int) -> Path:
        return toolchain.prepare(builder, cache=tmp_path / "cache", on_line=said.append)

    with ThreadPoolExecutor(4) as pool:
        assert len(set(pool.map(prepare, range(4)))) == 1
    assert said == ["making the toy toolchain (once)"]


def test_waiting_for_another_can_be_cancelled(tmp_path: Path) -> None:
    import fcntl

    builder = make_builder(tmp_path, "pass")
    root = tmp_path / "cache" / "toolchains"
    root.mkdir(parents=True)
    cancel = threading.Event()
    cancel.set()
    with (root / f"{toolchain.environment_key(builder)}.lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(CancelledError):
            toolchain.prepare(builder, cache=tmp_path / "cache", cancel=cancel)


def test_a_requirement_without_a_hash_is_refused(tmp_path: Path) -> None:
    builder = make_builder(tmp_path, "pass", lock="numpy==2.4.6\n")
    with pytest.raises(ToolchainError, match="hash") as caught:
        toolchain.prepare(builder, cache=tmp_path / "cache")
    assert "the toy toolchain cannot be made" in caught.value.message
    assert not (environment(tmp_path / "cache") / ".complete").exists()


def test_a_cache_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(StorageError) as caught:
        toolchain.prepare(make_builder(tmp_path, "pass"), cache=tmp_path / "cache")
    assert "EDGECTL_CACHE" in str(caught.value.hint)


def test_where_the_cache_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("EDGECTL_CACHE", str(tmp_path / "own"))
    assert toolchain.cache_directory() == tmp_path / "own"
    monkeypatch.delenv("EDGECTL_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert toolchain.cache_directory() == tmp_path / "xdg" / "edgectl"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert toolchain.cache_directory() == tmp_path / ".cache" / "edgectl"


def test_uv_is_found() -> None:
    assert os.access(toolchain.find_uv(), os.X_OK)
