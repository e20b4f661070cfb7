"""`edgectl sign`: sign a manifest or index and all below it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgectl.cli.options import output_option, password_option, registry_options

if TYPE_CHECKING:
    from edgectl.oci.access import Access


@click.command()
@click.argument("ref")
@click.option(
    "--key",
    required=True,
    type=click.Path(path_type=Path, dir_okay=False),
    help="Private key, in cosign's encrypted PEM.",
)
@password_option
@output_option
@registry_options
def sign(ref: str, key: Path, password_file: Path | None, output: str, access: Access) -> None:
    """Sign the manifest or index at REF, and every manifest that an index lists.

    REF is host[:port]/repository[:tag|@digest] or oci-layout:PATH[:tag|@digest]. Signing again
    with the same key changes nothing.
    """
    from edgectl.cli.password import read_password
    from edgectl.oci.access import open_artifact
    from edgectl.trust.keys import load_private
    from edgectl.trust.tree import sign_tree

    private = load_private(key, read_password(password_file))
    repository, descriptor = open_artifact(ref, access)
    signed = sign_tree(repository, descriptor, private)
    if output == "json":
        value = {"reference": ref, "digest": str(descriptor.digest)}
        value["key"] = private.public.fingerprint
        click.echo(json.dumps({**value, "signed": [str(d.digest) for d in signed]}, indent=2))
        return
    for manifest in signed:
        click.echo(f"signed {repository.name}@{manifest.digest}")
