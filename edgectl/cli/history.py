"""`edgectl history`: the releases of a fleet."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from edgectl.cli.options import output_option, project_option, registry_options
from edgectl.cli.release_output import models_text

if TYPE_CHECKING:
    from pathlib import Path

    from edgectl.oci.access import Access


@click.command()
@click.argument("fleet")
@project_option
@output_option
@registry_options
def history(fleet: str, root: Path, output: str, access: Access) -> None:
    """List every generation of FLEET, the oldest first."""
    from edgectl.apply.workspace import Workspace

    releases = Workspace.of_releases(root, access).history(fleet)
    if output == "json":
        click.echo(json.dumps([json.loads(release.to_bytes()) for release in releases], indent=2))
        return
    for release in releases:
        click.echo(f"{release.generation:>4}  {release.reason}")
        for ring in release.rings:
            click.echo(f"      {ring.name:<12} {models_text(ring)}")
