"""How a release is printed."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from edgectl.trust.release import FleetRelease, Ring


def show_release(release: FleetRelease, output: str) -> None:
    """Print a release that was just published, or is current."""
    if output == "json":
        click.echo(json.dumps(json.loads(release.to_bytes()), indent=2))
        return
    click.echo(f"{release.fleet}: generation {release.generation}, {release.reason}")
    for ring in release.rings:
        click.echo(f"  ring {ring.name:<12} {models_text(ring)}")
    for held in release.held:
        click.echo(f"  held {held.model} {held.version} ({held.reason})")


def models_text(ring: Ring) -> str:
    """`digits 1.0.0, tumour 1.0.0`."""
    return ", ".join(f"{model.name} {model.version}" for model in ring.models)
