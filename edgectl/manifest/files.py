"""The files that a Model names: they must be there, and inside the project."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from edgectl.manifest.document import Document
    from edgectl.manifest.model import Model, ModelSpec
    from edgectl.manifest.problem import Problem


def _named(spec: ModelSpec) -> Iterator[tuple[tuple[str, ...], str]]:
    """Each path that a model says, after the section that says it."""
    if spec.source.path is not None:
        yield ("source",), spec.source.path
    if spec.calibration is not None:
        yield ("calibration",), spec.calibration.path
    if spec.evaluation is not None:
        yield ("evaluation",), spec.evaluation.path
        for name, metric in spec.evaluation.metrics.items():
            yield ("evaluation", "metrics", name), metric.path
    yield ("golden",), spec.golden.path
    for name, asset in spec.assets.items():
        yield ("assets", name), asset.path


def file_problems(document: Document, model: Model, root: Path) -> Iterator[Problem]:
    """Paths that leave the project, also by a symbolic link, and files that are not there."""
    inside = os.path.realpath(root) + os.sep
    spec = model.spec
    for at, named in _named(spec):
        path = model.path(named)
        field = ("spec", *at, "path")
        if not os.path.realpath(path).startswith(inside):
            yield document.problem(
                field,
                f"{named!r} leads out of the project",
                "keep the data inside, or use url or oci with a digest",
            )
        elif not path.exists():
            yield document.problem(field, f"there is no file {path}")
        elif path.is_dir() and at != ("source",):
            yield document.problem(field, f"{path} is a directory, not a file")
        elif not (path.is_dir() or path.is_file()):
            yield document.problem(field, f"{path} is no regular file")
