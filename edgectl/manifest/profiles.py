"""Where the hardware profiles are that edgectl ships.

A Target in the user's repository comes first; then the copies in the wheel, `edgectl/_targets`;
in a checkout, which has no such copies, `manifests/targets`.
"""

from __future__ import annotations

from pathlib import Path

import edgectl

_PACKAGE = Path(edgectl.__file__).parent


def profile_files() -> list[Path]:
    """The files of the shipped profiles, sorted."""
    for directory in (_PACKAGE / "_targets", _PACKAGE.parent / "manifests" / "targets"):
        if directory.is_dir():
            return sorted(directory.glob("*.yaml"))
    return []
