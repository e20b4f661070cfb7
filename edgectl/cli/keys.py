"""`edgectl keys`: make and inspect signing keys."""

from __future__ import annotations

import json
from pathlib import Path

import click

from edgectl.cli.options import output_option, password_option


@click.group()
def keys() -> None:
    """Make and inspect signing keys, in the files of cosign."""


@keys.command()
@click.option(
    "--output-key-prefix",
    "prefix",
    type=click.Path(path_type=Path),
    default=Path("cosign"),
    show_default=True,
    help="Write PREFIX.key and PREFIX.pub.",
)
@password_option
@output_option
def generate(prefix: Path, password_file: Path | None, output: str) -> None:
    """Make an ECDSA P-256 key pair; the private key is encrypted. Nothing is overwritten."""
    from edgectl.cli.password import read_password
    from edgectl.trust.keyfile import write_key_pair
    from edgectl.trust.keys import generate as generate_key

    key = generate_key()
    private, public = write_key_pair(prefix, key, read_password(password_file, confirm=True))
    if output == "json":
        value = {"privateKey": str(private), "publicKey": str(public)}
        click.echo(json.dumps(value | {"fingerprint": key.public.fingerprint}, indent=2))
        return
    click.echo(f"private key  {private}  (encrypted; keep it away from devices)")
    click.echo(f"public key   {public}")
    click.echo(f"fingerprint  {key.public.fingerprint}")


@keys.command()
@click.argument(
    "files", nargs=-1, required=True, type=click.Path(path_type=Path, dir_okay=False, exists=True)
)
@output_option
def show(files: tuple[Path, ...], output: str) -> None:
    """Show algorithm and fingerprint of public keys."""
    from edgectl.trust.keys import load_public

    loaded = {str(file): load_public(file) for file in files}
    if output == "json":
        value = [
            {"file": file, "algorithm": key.algorithm, "fingerprint": key.fingerprint}
            for file, key in loaded.items()
        ]
        click.echo(json.dumps(value, indent=2))
        return
    for file, key in loaded.items():
        click.echo(f"{key.fingerprint}  {key.algorithm}  {file}")
