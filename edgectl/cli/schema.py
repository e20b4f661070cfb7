"""`edgectl schema`: write the JSON Schema of the manifest kinds."""

from __future__ import annotations

import json
from pathlib import Path

import click


@click.command()
@click.argument(
    "kind",
    required=False,
    type=click.Choice(["Project", "Model", "Target", "Fleet"], case_sensitive=False),
)
@click.option(
    "--output-dir",
    type=click.Path(path_type=Path, file_okay=False),
    help="Write a file per kind, and edgectl.json for all, into this directory.",
)
def schema(kind: str | None, output_dir: Path | None) -> None:
    """Write the JSON Schema (2020-12) of KIND, or of a manifest of any kind.

    With `# yaml-language-server: $schema=FILE` in its first line, a manifest is completed and
    checked by editors.
    """
    from edgectl.manifest.schema import schemas
    from edgectl.oci.filesystem import storage_errors, write_atomic

    wanted = f"{(kind or 'edgectl').lower()}.json"
    made = {
        name: json.dumps(value, indent=2, ensure_ascii=False) + "\n"
        for name, value in schemas().items()
        if name == wanted or (output_dir and kind is None)
    }
    if output_dir is None:
        click.echo(made[wanted], nl=False)
        return
    with storage_errors(f"writing schemas to {output_dir}"):
        output_dir.mkdir(parents=True, exist_ok=True)
        for name, text in made.items():
            write_atomic(output_dir / name, text.encode())
            click.echo(output_dir / name)
