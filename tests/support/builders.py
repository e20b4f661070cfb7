"""Builders of the tests: real folders, real environments, with nothing to install."""

from __future__ import annotations

from pathlib import Path
from textwrap import dedent

from edgectl.build.builder import Builder, load_builder

REPOSITORY = Path(__file__).resolve().parents[2]
MANIFESTS = REPOSITORY / "manifests"

_SPEC = (
    "protocol: 1\nname: {name}\nactions: [import, optimize]\nformats: [{name}]\nengines: [toy]\n"
)


def make_builder(
    folder: Path, script: str, *, name: str = "toy", lock: str = "# none\n"
) -> Builder:
    """Write a builder folder below `folder` and load it. `script` is the text of its build.py."""
    directory = folder / name
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "builder.yaml").write_text(_SPEC.format(name=name))
    (directory / "requirements.lock").write_text(lock)
    (directory / "build.py").write_text(dedent(script))
    return load_builder(directory)
