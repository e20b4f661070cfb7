"""The environments that builders run in: made by uv from a hashed lock, once, and kept.

Environments live in `$EDGECTL_CACHE/toolchains`, one for each lock, Python and platform. One that
carries its marker is complete and is used without a network; anything else is made anew.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import sys
import sysconfig
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from edgectl.build.process import CancelledError, run_process
from edgectl.digest import Digest, canonical_json
from edgectl.errors import StorageError, StorageFullError, ToolchainError

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Iterator

    from edgectl.build.builder import Builder

_MARKER = ".complete"
_LOCK_POLL_SECONDS = 0.2
# Wheels only: an sdist would run its author's code on this machine while it is installed.
_INSTALL = ("pip", "install", "--quiet", "--require-hashes", "--only-binary", ":all:")
_FOREIGN = ("VIRTUAL_ENV", "CONDA_PREFIX", "PYTHONPATH", "PYTHONHOME")


def cache_directory() -> Path:
    """`$EDGECTL_CACHE`, else `$XDG_CACHE_HOME/edgectl`, else `~/.cache/edgectl`."""
    own = os.environ.get("EDGECTL_CACHE")
    if own:
        return Path(own)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "edgectl"


def environment_key(builder: Builder) -> str:
    """Equal keys mean interchangeable environments: same lock, same Python, same platform."""
    parts = [
        str(builder.lock_digest),
        sys.implementation.cache_tag,
        sys.version.split()[0],
        sysconfig.get_platform(),
    ]
    return f"{builder.name}-{Digest.of(canonical_json(parts)).hex[:24]}"


def prepare(
    builder: Builder,
    *,
    cache: Path | None = None,
    on_line: Callable[[str], None] | None = None,
    cancel: threading.Event | None = None,
) -> Path:
    """The Python of a builder's environment, which is made first where it is missing.

    Two callers at once make it once: the second waits. Raises ToolchainError when uv is missing or
    fails, StorageError and StorageFullError when the cache cannot be written, CancelledError when
    `cancel` is set meanwhile.
    """
    root = (cache or cache_directory()) / "toolchains"
    directory = root / environment_key(builder)
    if not _is_complete(directory):
        try:
            root.mkdir(parents=True, exist_ok=True)
            with _lock(directory.with_suffix(".lock"), cancel) as lock:
                if not _is_complete(directory):
                    _make(builder, directory, lock, on_line or _ignore, cancel)
        except OSError as error:
            raise StorageError(
                f"the toolchain cache {root} cannot be written: {error.strerror or error}",
                hint="set EDGECTL_CACHE to a directory that can be written",
            ) from error
    return _python(directory)


def is_ready(builder: Builder, *, cache: Path | None = None) -> bool:
    """Whether a builder's environment is there, so that nothing has to be made or fetched."""
    return _is_complete((cache or cache_directory()) / "toolchains" / environment_key(builder))


def resolve(builder: Builder, scratch: str) -> None:
    """Find a wheel of every locked package for this Python and platform, and install nothing.

    Raises ToolchainError where some package has none, the package index does not answer, or uv is
    missing.
    """
    target = ["--dry-run", "--python", sys.executable, "--target", scratch, "-r", str(builder.lock)]
    _uv([find_uv(), *_INSTALL, *target], builder, None, None)


def find_uv() -> str:
    """The uv binary: of edgectl's own environment, else of PATH; raises ToolchainError."""
    try:
        from uv import find_uv_bin

        return find_uv_bin()
    except (ImportError, FileNotFoundError):
        found = shutil.which("uv")
    if found is None:
        raise ToolchainError(
            "uv is not installed, and without it no toolchain can be made",
            hint="pip install 'edgectl[build]'",
        )
    return found


def _python(directory: Path) -> Path:
    return directory / "bin" / "python"


def _is_complete(directory: Path) -> bool:
    # The Python is a link to the base interpreter, which an upgrade of the system can remove.
    return (directory / _MARKER).is_file() and _python(directory).is_file()


@contextmanager
def _lock(path: Path, cancel: threading.Event | None) -> Iterator[int]:
    """Hold a lock; yields its file descriptor, with which another process holds it too."""
    with path.open("w") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if cancel is not None and cancel.is_set():
                    raise CancelledError from None
                time.sleep(_LOCK_POLL_SECONDS)
        yield file.fileno()


def _make(
    builder: Builder,
    directory: Path,
    lock: int,
    on_line: Callable[[str], None],
    cancel: threading.Event | None,
) -> None:
    """Make the environment in place (its scripts hold its path); the marker comes last.

    uv goes on when this process is killed, so it holds the lock too: nobody else writes meanwhile.
    """
    uv = find_uv()
    if directory.exists():
        shutil.rmtree(directory)
    on_line(f"making the {builder.name} toolchain (once)")
    create = [uv, "venv", "--quiet", "--python", sys.executable, str(directory)]
    _uv(create, builder, lock, cancel)
    # Compiled now: a build must not write into an environment that others use.
    target = ["--compile-bytecode", "--python", str(_python(directory)), "-r", str(builder.lock)]
    _uv([uv, *_INSTALL, *target], builder, lock, cancel)
    with (directory / _MARKER).open("w") as marker:
        os.fsync(marker.fileno())


def _uv(
    command: list[str], builder: Builder, lock: int | None, cancel: threading.Event | None
) -> None:
    env = {name: value for name, value in os.environ.items() if name not in _FOREIGN}
    if "PIP_FIND_LINKS" in env:  # uv reads none of pip's settings
        env.setdefault("UV_FIND_LINKS", ",".join(env["PIP_FIND_LINKS"].split()))
    keep = () if lock is None else (lock,)
    status, tail = run_process(
        command, cwd=builder.directory, env=env, on_line=_ignore, cancel=cancel, keep=keep
    )
    if status == 0:
        return
    text = "\n".join(line for line in tail if line.strip())
    if "No space left on device" in text:
        raise StorageFullError(
            f"no space is left to make the {builder.name} toolchain",
            hint="free some space, or set EDGECTL_CACHE to another disk",
        )
    raise ToolchainError(
        f"the {builder.name} toolchain cannot be made: {text or f'uv exited with {status}'}",
        hint="check that the package index can be reached (uv reads UV_DEFAULT_INDEX and "
        "UV_OFFLINE); name one more, such as PyTorch's for CPU wheels, by UV_INDEX or "
        "UV_FIND_LINKS; then run the same command again",
    )


def _ignore(line: str) -> None:
    """Drop a line of output."""
