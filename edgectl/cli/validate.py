"""`edgectl validate`: check the manifests."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from edgectl.cli.options import output_option, project_option

if TYPE_CHECKING:
    from pathlib import Path


@click.command()
@project_option
@output_option
def validate(root: Path, output: str) -> int:
    """Check the manifests of the project.

    Tells every problem at once, each with file, line, column and field. Reads no registry, and of
    data files only what their arrays are; `edgectl plan` compares files with their sha256.
    """
    from edgectl.build.builder import find_builders, source_formats
    from edgectl.manifest.load import load_project
    from edgectl.manifest.problem import ManifestErrors

    try:
        manifests = load_project(root, source_formats(find_builders(repository=root)), data=True)
    except ManifestErrors as errors:
        if output == "text":
            raise
        problems = [problem.to_json() for problem in errors.problems]
        click.echo(json.dumps({"valid": False, "problems": problems}, indent=2))
        return errors.exit_code
    counts = {
        "models": len(manifests.models),
        "targets": len(manifests.targets),
        "fleets": len(manifests.fleets),
    }
    if output == "json":
        click.echo(json.dumps({"valid": True, "problems": [], **counts}, indent=2))
    else:
        found = ", ".join(f"{noun}: {count}" for noun, count in counts.items())
        click.echo(f"{manifests.project.origin.path}: valid ({found})")
    return 0
