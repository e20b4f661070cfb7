"""`edgectl status`: registry, releases, rings and versions."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from edgectl.cli.options import output_option, project_option, registry_options
from edgectl.cli.release_output import models_text

if TYPE_CHECKING:
    from pathlib import Path

    from edgectl.apply.status import FleetStatus, ModelStatus
    from edgectl.oci.access import Access


@click.command()
@project_option
@output_option
@registry_options
def status(root: Path, output: str, access: Access) -> None:
    """Show what the registry holds, and what each ring of each fleet is to run."""
    from edgectl.apply.status import read_status
    from edgectl.apply.workspace import Workspace

    found = read_status(Workspace.open(root, access))
    if output == "json":
        click.echo(json.dumps(found.to_json(), indent=2))
        return
    click.echo(f"registry {found.registry}")
    if found.expires is None:
        click.echo("  no releases yet: edgectl trust init, then edgectl apply")
    elif found.expired:
        click.secho(f"  release metadata expired {found.expires:%Y-%m-%d %H:%M} UTC", fg="red")
        click.echo("  Next: edgectl trust refresh")
    else:
        click.echo(f"  release metadata good until {found.expires:%Y-%m-%d %H:%M} UTC")
    for model in found.models:
        _show_model(model)
    for fleet in found.fleets:
        _show_fleet(fleet)


def _show_model(model: ModelStatus) -> None:
    digest = model.index.short if model.index else "not in the registry"
    click.echo(f"model {model.name}:{model.version}  {digest}  {', '.join(model.targets)}")


def _show_fleet(fleet: FleetStatus) -> None:
    if fleet.release is None:
        click.echo(f"fleet {fleet.name}: not released")
        return
    click.echo(f"fleet {fleet.name}: generation {fleet.release.generation}, {fleet.release.reason}")
    for ring in fleet.release.rings:
        note = "  (lags)" if ring.name == fleet.lagging else ""
        click.echo(f"  ring {ring.name:<12} {models_text(ring)}{note}")
    if not fleet.wanted:
        click.echo("  not in the manifests: its devices go on with this release")
    for held in fleet.release.held:
        click.echo(f"  held {held.model} {held.version} ({held.reason})")
