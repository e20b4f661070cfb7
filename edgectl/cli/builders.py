"""`edgectl builders`: the environments that toolchains run in."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from edgectl.cli.options import project_option

if TYPE_CHECKING:
    from pathlib import Path


@click.group()
def builders() -> None:
    """Make the toolchains ahead of an apply."""


@builders.command()
@click.argument("names", metavar="[NAME]...", nargs=-1)
@project_option
def prepare(names: tuple[str, ...], root: Path) -> None:
    """Make the environments of these toolchains, or of all, so that an apply needs no index.

    They are kept in $EDGECTL_CACHE (~/.cache/edgectl), which a CI keeps from run to run. One that
    is there is left as it is; one that cannot be made is an error after the others are.
    """
    from edgectl.build.builder import find_builder, find_builders
    from edgectl.build.toolchain import is_ready, prepare
    from edgectl.errors import ToolchainError

    wanted = [find_builder(name, repository=root) for name in names] if names else None
    failed: list[ToolchainError] = []
    for builder in wanted or find_builders(repository=root):
        if is_ready(builder):
            click.echo(f"{builder.name:<12} is ready")
            continue
        try:
            prepare(builder)
        except ToolchainError as error:
            failed.append(error)
            click.echo(f"{builder.name:<12} cannot be made", err=True)
            continue
        click.echo(f"{builder.name:<12} made")
    if failed:
        raise ToolchainError("; ".join(each.message for each in failed), hint=failed[0].hint)
