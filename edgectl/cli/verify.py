"""`edgectl verify`: every signature and every byte below a reference."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
    With oci-layout:DIR, a whole registry directory, everything in it is verified.
    """
    from edgectl.oci.access import open_artifact, open_directory
    from edgectl.trust.keys import load_public
    from edgectl.trust.registry import verify_layout
    from edgectl.trust.tree import verify_tree

    keys = [load_public(file) for file in key_files]
    directory = open_directory(ref)
    if directory is not None:
        found = verify_layout(directory, keys)
        _show(
            output,
            {"reference": ref, **asdict(found)},
            f"{found.tags} signed tags in {found.repositories} repositories, "
            f"{found.blobs} blobs, {found.bytes} bytes",
        )
        return
    repository, descriptor = open_artifact(ref, access)
    tree = verify_tree(repository, descriptor, keys)
    _show(
        output,
        {"reference": ref, "digest": str(descriptor.digest), **asdict(tree)},
        f"{tree.manifests} signed manifests, {tree.blobs} blobs, "
        f"{tree.bundles} signatures and attestations, {tree.bytes} bytes",
    )


def _show(output: str, value: dict[str, Any], text: str) -> None:
    if output == "json":
        click.echo(json.dumps({"verified": True, **value}, indent=2))
        return
    click.secho("verified ", fg="green", nl=False)
    click.echo("@".join(value[key] for key in ("reference", "digest") if key in value))
    click.echo(f"  {text}")
