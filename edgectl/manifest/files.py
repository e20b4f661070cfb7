"""The data files that a Model names: they must be there, and inside the project."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from edgectl.manifest.document import Document
    from edgectl.manifest.model import Model
    from edgectl.manifest.problem import Problem


def file_problems(document: Document, model: Model, root: Path) -> Iterator[Problem]:
    """Paths that leave the project, also by a symbolic link, and files that are not there."""
    inside = os.path.realpath(root) + os.sep
    spec = model.spec
    for section, named, directory_allowed in (
        ("source", spec.source.path, True),
        ("calibration", spec.calibration.path if spec.calibration else None, False),
        ("evaluation", spec.evaluation.path if spec.evaluation else None, False),
        ("golden", spec.golden.path, False),
    ):
        if named is None:
            continue
        path = model.path(named)
        field = ("spec", section, "path")
        if not os.path.realpath(path).startswith(inside):
            yield document.problem(
                field,
                f"{named!r} leads out of the project",
                "keep the data inside, or use url or oci with a digest",
            )
        elif not path.exists():
            yield document.problem(field, f"there is no file {path}")
        elif path.is_dir() and not directory_allowed:
            yield document.problem(field, f"{path} is a directory, not a file")
