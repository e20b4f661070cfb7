"""`edgectl verify`: every signature and every byte below a reference."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgectl.cli.options import output_option, registry_options

if TYPE_CHECKING:
    from edgectl.oci.access import Access


@click.command()
@click.argument("ref")
@click.option(
    "--key",
    "key_files",
    required=True,
    multiple=True,
    type=click.Path(path_type=Path, dir_okay=False),
    help="Public key whose signatures are accepted; several may be given.",
)
@output_option
@registry_options
def verify(ref: str, key_files: tuple[Path, ...], output: str, access: Access) -> None:
    """Verify the tree below REF: a signature on every manifest and index, and every byte.

    REF is host[:port]/repository[:tag|@digest] or oci-layout:PATH[:tag|@digest].
    """
    from edgectl.oci.access import open_artifact
    from edgectl.trust.keys import load_public
    from edgectl.trust.tree import verify_tree

    keys = [load_public(file) for file in key_files]
    repository, descriptor = open_artifact(ref, access)
    summary = verify_tree(repository, descriptor, keys)
    if output == "json":
        value = {"reference": ref, "digest": str(descriptor.digest), "verified": True}
        click.echo(json.dumps({**value, **asdict(summary)}, indent=2))
        return
    click.secho("verified ", fg="green", nl=False)
    click.echo(f"{repository.name}@{descriptor.digest}")
    click.echo(
        f"  {summary.manifests} signed manifests, {summary.blobs} blobs, "
        f"{summary.bundles} signatures and attestations, {summary.bytes} bytes"
    )
