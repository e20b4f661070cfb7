"""A project of manifests on disk, with keys and release metadata, ready to apply."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[2]
EDGECTL = str(Path(sys.executable).with_name("edgectl"))
PASSWORD = "correct horse"


@dataclass(frozen=True)
class Finished:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """What it printed, as JSON."""
        return json.loads(self.out)


class Project:
    """A copy of the reference project, driven by the command line alone."""

    def __init__(
        self,
        root: Path,
        *,
        registry: str | None = None,
        options: tuple[str, ...] = (),
        recipes: bool = False,
    ) -> None:
        """Make keys and release metadata; `options` are those that reach the registry.

        Without `recipes` only the shop floor is a fleet, and so only its two models are built.
        """
        self.root = root
        left_out = ("training", "samples", *(() if recipes else ("recipes",)))
        shutil.copytree(REPOSITORY / "manifests", root, ignore=shutil.ignore_patterns(*left_out))
        self.must("keys", "generate", "--output-key-prefix", "keys/cosign")
        if registry is not None:
            self.edit("edgectl.yaml", "registry: oci-layout:registry", f"registry: {registry}")
        self.must("trust", "init", *options)

    @property
    def public_key(self) -> str:
        """The path of the key that signatures are verified with."""
        return str(self.root / "keys" / "cosign.pub")

    def reference(self, what: str) -> str:
        """The reference to `models/digits:1.0.0` or the like."""
        return f"oci-layout:{self.root}/registry/{what}"

    def edit(self, file: str, old: str, new: str) -> None:
        """Replace a text in a manifest; it has to be there."""
        path = self.root / file
        text = path.read_text()
        assert old in text, f"{file} has no {old!r}"
        path.write_text(text.replace(old, new))

    def run(self, *arguments: str, **environment: str) -> Finished:
        """Run edgectl in the project."""
        done = subprocess.run(
            [EDGECTL, *arguments],
            cwd=self.root,
            env=self.environment(**environment),
            capture_output=True,
            text=True,
            check=False,
        )
        return Finished(done.returncode, done.stdout, done.stderr)

    def must(self, *arguments: str, **environment: str) -> Finished:
        """Run edgectl, which has to succeed."""
        done = self.run(*arguments, **environment)
        assert done.code == 0, f"edgectl {' '.join(arguments)} ended with {done.code}:\n{done.err}"
        return done

    def environment(self, **more: str) -> dict[str, str]:
        """The environment that edgectl runs in; what a killed one leaves stays near the project."""
        temporary = self.root.with_name(f"{self.root.name}.tmp")
        temporary.mkdir(exist_ok=True)
        own = {"EDGECTL_KEY_PASSWORD": PASSWORD, "TMPDIR": str(temporary)}
        return {**os.environ, **own, **more}

    def only_digits_for(self, *targets: str) -> None:
        """Leave one model and some targets, so that an apply takes seconds."""
        fleet = "fleets/shopfloor.yaml"
        text = (self.root / fleet).read_text()
        lines = [line for line in text.splitlines() if "tumour" not in line]
        at = next(n for n, line in enumerate(lines) if line.strip().startswith("targets:"))
        lines[at] = f"  targets: [{', '.join(targets)}]"
        (self.root / fleet).write_text("\n".join(lines) + "\n")

    def indexes(self) -> dict[str, str]:
        """Name of every version tag, of models and images, to its digest."""
        found = {}
        for layout in sorted((self.root / "registry").glob("*/*/index.json")):
            name = f"{layout.parent.parent.name}/{layout.parent.name}"
            for entry in json.loads(layout.read_text())["manifests"]:
                tag = entry.get("annotations", {}).get("org.opencontainers.image.ref.name", "")
                if tag[:1].isdigit():
                    found[f"{name}:{tag}"] = entry["digest"]
        return found
