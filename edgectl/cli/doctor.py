"""`edgectl doctor`: what this machine can build with."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from edgectl.cli.options import output_option, project_option

if TYPE_CHECKING:
    from pathlib import Path

    from edgectl.build.doctor import Diagnosis

_COLOURS = {"ready": "green", "installable": "cyan", "impossible": "red"}


@click.command()
@project_option
@output_option
def doctor(root: Path, output: str) -> None:
    """List the toolchains: ready, installable, or impossible here, and why.

    Installs nothing. What is not ready is resolved against the package index.
    """
    from edgectl.build.builder import find_builders
    from edgectl.build.doctor import diagnose

    found = diagnose(find_builders(repository=root))
    if output == "json":
        click.echo(json.dumps([each.to_json() for each in found], indent=2))
        return
    for each in found:
        _show(each)
    if any(each.state == "installable" for each in found):
        click.echo("an apply makes what it needs; to do it now: edgectl builders prepare")


def _show(diagnosis: Diagnosis) -> None:
    builder = diagnosis.builder
    click.secho(f"{diagnosis.state:<12}", fg=_COLOURS[diagnosis.state], nl=False)
    imports = f"imports {', '.join(builder.formats)}" if builder.formats else ""
    takes = f"takes {', '.join(builder.takes)}" if builder.takes else ""
    makes = f"for {', '.join(builder.engines)}" if builder.engines else ""
    click.echo(f"{builder.name:<12} {'; '.join(filter(None, (imports, takes, makes)))}")
    for action, reason in sorted(builder.leaves.items()):
        click.echo(f"{'':<12} leaves {action} to the device: {reason}")
    if diagnosis.reason:
        click.echo(f"{'':<12} {diagnosis.reason.splitlines()[-1]}")
    if diagnosis.hint:
        click.echo(f"{'':<12} Next: {diagnosis.hint}")
