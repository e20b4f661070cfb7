"""`edgectl explain`: which variant a device gets, and why each other one not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgectl.cli.options import output_option, project_option, registry_options

if TYPE_CHECKING:
    from edgectl.apply.explain import Explanation
    from edgectl.oci.access import Access


@click.command()
@click.argument("model")
@click.option(
    "--device",
    required=True,
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    help="The device's device.yaml.",
)
@project_option
@output_option
@registry_options
def explain(model: str, device: Path, root: Path, output: str, access: Access) -> None:
    """Say which variant of MODEL (NAME or NAME:VERSION) a device gets, and why no other.

    Without a version: the one that the device's ring is to run.
    """
    from edgectl.apply.explain import explain_model
    from edgectl.apply.workspace import Workspace

    found = explain_model(Workspace.of_releases(root, access), model, device)
    if output == "json":
        click.echo(json.dumps(found.to_json(), indent=2))
    else:
        _show(found)


def _show(found: Explanation) -> None:
    click.echo(f"{found.model}:{found.version} on {found.device} ({found.because})")
    if found.choice.chosen is None:
        click.secho("  no variant runs there", fg="red")
    else:
        chosen = found.choice.chosen
        click.secho(f"  gets {chosen.target}", fg="green", nl=False)
        click.echo(f"  {chosen.precision}, {chosen.engine}, {chosen.descriptor.digest}")
    for rejection in found.choice.rejected:
        click.echo(f"  not {rejection.target}: {rejection.reason}")
