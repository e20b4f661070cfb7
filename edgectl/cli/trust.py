"""`edgectl trust`: make and renew the release metadata (TUF)."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from edgectl.cli.options import output_option, password_option, project_option, registry_options

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from edgectl.oci.access import Access
    from edgectl.trust.repository import RoleStatus, TrustRepository

_ROLES = ("root", "targets", "snapshot", "timestamp")


class _RoleNumber(click.ParamType[tuple[str, int]]):
    """`ROLE=NUMBER`."""

    name = "role=number"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, int]:
        role, _, number = str(value).partition("=")
        if role not in _ROLES or not number.isdecimal():
            self.fail(f"{value!r} is not ROLE=NUMBER, for example root=2", param, ctx)
        return role, int(number)


@click.group()
def trust() -> None:
    """Make and renew the release metadata that devices trust."""


@trust.command()
@click.option(
    "--keys",
    "numbers",
    multiple=True,
    type=_RoleNumber(),
    help="How many keys a role has, as in root=3.  [default: as many as its threshold]",
)
@click.option(
    "--threshold",
    "thresholds",
    multiple=True,
    type=_RoleNumber(),
    help="How many of them must sign, as in root=2.  [default: 1]",
)
@project_option
@password_option
@output_option
@registry_options
def init(
    numbers: tuple[tuple[str, int], ...],
    thresholds: tuple[tuple[str, int], ...],
    root: Path,
    password_file: Path | None,
    output: str,
    access: Access,
) -> None:
    """Make separate keys for each role, and the first release. An interrupted run is completed."""
    from edgectl.trust.policy import KeyPolicy

    policy = KeyPolicy(dict(numbers), dict(thresholds))
    repository = _open(root, access, password_file, new_keys=True)
    repository.init(policy)
    _show(repository.status(), output)
    if output == "text":
        click.echo(f"Ship devices with {repository.root_file}; keep the root keys offline.")


@trust.command()
@project_option
@password_option
@output_option
@registry_options
def refresh(root: Path, password_file: Path | None, output: str, access: Access) -> None:
    """Sign a new timestamp, and whatever else is past half of its life. Run it by the clock."""
    repository = _open(root, access, password_file)
    repository.refresh()
    _show(repository.status(), output)


@trust.command()
@project_option
@output_option
@registry_options
def status(root: Path, output: str, access: Access) -> None:
    """Verify the release metadata, and show versions, expiry and keys of each role."""
    _show(_open(root, access, None).status(), output)


@trust.command()
@click.argument("role", type=click.Choice(_ROLES))
@project_option
@password_option
@output_option
@registry_options
def rotate(role: str, root: Path, password_file: Path | None, output: str, access: Access) -> None:
    """Replace the keys of ROLE by new ones, in a new root that devices follow by themselves."""
    repository = _open(root, access, password_file)
    repository.rotate(role)
    _show(repository.status(), output)


def _open(
    root: Path, access: Access, password_file: Path | None, *, new_keys: bool = False
) -> TrustRepository:
    from edgectl.apply.workspace import Workspace
    from edgectl.cli.password import read_password

    workspace = Workspace.of_releases(root, access)
    file = workspace.password_file(password_file)

    def password() -> bytes:
        given = read_password(file, confirm=new_keys)
        if new_keys:
            workspace.check_password(given)
        return given

    return workspace.release_repository(password)


def _show(roles: Sequence[RoleStatus], output: str) -> None:
    from datetime import UTC, datetime

    now = datetime.now(UTC)
    if output == "json":
        value = [
            {
                "role": role.role,
                "version": role.version,
                "expires": role.expires.isoformat(),
                "expired": role.expires <= now,
                "threshold": role.threshold,
                "keys": role.keys,
                "keysHere": role.keys_here,
            }
            for role in roles
        ]
        click.echo(json.dumps(value, indent=2))
        return
    for role in roles:
        click.echo(
            f"{role.role:<10} version {role.version:<5} {role.threshold} of {role.keys} keys sign"
            f" ({role.keys_here} here)  expires {role.expires:%Y-%m-%d %H:%M} UTC",
            nl=False,
        )
        expired = role.expires <= now
        click.echo(click.style("  EXPIRED", fg="red") if expired else "")
