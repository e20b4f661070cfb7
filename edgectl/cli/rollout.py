"""`edgectl rollout`: move a release on through the rings."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from edgectl.cli.options import output_option, password_option, project_option, registry_options
from edgectl.cli.release_output import show_release

if TYPE_CHECKING:
    from pathlib import Path

    from edgectl.oci.access import Access


@click.group()
def rollout() -> None:
    """Advance the rollout of a fleet, or let held versions go again."""


@rollout.command()
@click.argument("fleet")
@click.option("--all", "everything", is_flag=True, help="Every ring at once.")
@project_option
@password_option
@output_option
@registry_options
def advance(
    fleet: str,
    everything: bool,
    root: Path,
    password_file: Path | None,
    output: str,
    access: Access,
) -> None:
    """Give the next ring of FLEET what the ring before it runs."""
    from edgectl.apply.workspace import Workspace
    from edgectl.cli.password import read_password
    from edgectl.plan.rollout import advance as next_release

    workspace = Workspace.of_releases(root, access)
    release = next_release(workspace.release(fleet), everything=everything)
    workspace.publish(release, read_password(workspace.password_file(password_file)))
    show_release(release, output)


@rollout.command()
@click.argument("fleet")
@project_option
@password_option
@output_option
@registry_options
def resume(fleet: str, root: Path, password_file: Path | None, output: str, access: Access) -> None:
    """Let apply release again what FLEET was rolled back from."""
    from edgectl.apply.workspace import Workspace
    from edgectl.cli.password import read_password
    from edgectl.plan.rollout import resume as without_holds

    workspace = Workspace.of_releases(root, access)
    release = without_holds(workspace.release(fleet))
    workspace.publish(release, read_password(workspace.password_file(password_file)))
    show_release(release, output)
