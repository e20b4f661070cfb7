"""Where the hardware profiles are that edgectl ships.

A Target in the user's repository comes first; then the copies in the wheel, `edgectl/_targets`;
in a checkout, which has no such copies, `manifests/targets`.
"""

from __future__ import annotations

from pathlib import Path

import edgectl

_PACKAGE = Path(edgectl.__file__).parent


def profile_files(package: Path = _PACKAGE) -> list[Path]:
    """The files of the profiles that an installed package ships, sorted."""
    for directory in (package / "_targets", package.parent / "manifests" / "targets"):
        if directory.is_dir():
            return sorted(directory.glob("*.yaml"))
    return []
