"""`edgectl rollback`: release what an earlier generation ran."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from edgectl.cli.options import output_option, password_option, project_option, registry_options
from edgectl.cli.release_output import show_release

if TYPE_CHECKING:
    from pathlib import Path

    from edgectl.oci.access import Access


@click.command()
@click.argument("fleet")
@click.option(
    "--to", type=click.IntRange(1), metavar="GENERATION", help="A generation of `edgectl history`."
)
@project_option
@password_option
@output_option
@registry_options
def rollback(
    fleet: str,
    to: int | None,
    root: Path,
    password_file: Path | None,
    output: str,
    access: Access,
) -> None:
    """Release what an earlier generation of FLEET ran, as a new generation.

    Without --to: the newest one that ran something else. What is rolled back is held: apply does
    not release it again until `edgectl rollout resume`.
    """
    from edgectl.apply.workspace import Workspace
    from edgectl.cli.password import read_password
    from edgectl.plan.rollout import rollback as earlier_release

    workspace = Workspace.of_releases(root, access)
    release = earlier_release(workspace.release(fleet), workspace.history(fleet), to=to)
    workspace.publish(release, read_password(workspace.password_file(password_file)))
    show_release(release, output)
