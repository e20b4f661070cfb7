"""The files of the repository, as git sees them."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

from tests.support.project import REPOSITORY

if TYPE_CHECKING:
    from pathlib import Path


def tracked(*patterns: str) -> list[Path]:
    """The files in git (or about to be), of the given patterns below the repository."""
    git = ["git", "-c", f"safe.directory={REPOSITORY}"]  # CI containers run as another user
    command = [*git, "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--"]
    names = subprocess.run(
        [*command, *patterns], cwd=REPOSITORY, check=True, capture_output=True, text=True
    ).stdout
    return [path for name in names.split("\0") if name and (path := REPOSITORY / name).is_file()]
