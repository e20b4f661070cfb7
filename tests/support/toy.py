"""A project whose toolchain needs nothing and takes no time: everything around it is real.

A toy model is a JSON text that says what its builder answers: `accuracy` of what is imported,
`int8` accuracy of what is optimised, `golden` problems, or that it is to be refused (`refuse`).
"""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from edgectl.apply.run import Applier, Report
from edgectl.apply.workspace import Workspace
from edgectl.oci.access import Access
from edgectl.trust.keyfile import write_key_pair
from edgectl.trust.keys import generate

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from edgectl.apply.events import Events
    from edgectl.oci.store import Repository
    from edgectl.plan.compare import Plan, Selection

PASSWORD = "toy"
TARGETS = ("intel-nuc", "raspberry-pi-5")
_BUILD = """\
import json
import pathlib
import shutil

from edgectl.build.protocol import Done, RefusalError, main


def keep(role):
    def action(task):
        said = json.loads(task.inputs[role].read_bytes())
        if said.get("refuse") == task.action:
            raise RefusalError("toy", "it says so", hint="let it say something else")
        shutil.copy(task.inputs[role], "model.onnx")
        if task.action == "optimize":
            said["accuracy"] = said.get("int8", said["accuracy"])
            pathlib.Path("model.onnx").write_text(json.dumps(said | {"optimized": True}))
        return Done({"model": "model.onnx"})
    return action


def evaluate(task):
    model = task.inputs["model"]
    said = json.loads(model.read_bytes())
    if said.get("report") is not None:
        return Done({}, said["report"])
    host = {"architecture": "toy", "cpu": "toy", "engine": "toy 1", "providers": ["toy"]}
    timed = {}
    if "clock" in said:
        host["architecture"] = said["architecture"]
        latency = json.loads(pathlib.Path(said["clock"]).read_bytes())
        timed["measured"] = {"latency": latency, "loadSeconds": 0.1, "peakMemoryBytes": 1}
    return Done({}, timed | {
        "metrics": {"accuracy": said["accuracy"]},
        "samples": 10,
        "sizeBytes": model.stat().st_size,
        "host": host,
        "golden": {"problems": said.get("golden", [])},
    })


main({"import": keep("source"), "optimize": keep("model"), "evaluate": evaluate})
"""
_HEAD = "apiVersion: edgectl.dev/v1alpha1\n"


class ToyProject:
    """The project of one test, with keys and release metadata, its registry a directory."""

    def __init__(self, root: Path) -> None:
        """What is below `root` already: see `make` and `copy`."""
        self.root = root

    @classmethod
    def make(cls, root: Path, *, registry: str = "oci-layout:registry") -> Self:
        """Write the project and its keys."""
        made = cls(root)
        (root / "keys").mkdir(parents=True)
        (root / "edgectl.yaml").write_text(
            f"{_HEAD}kind: Project\nmetadata: {{name: toy}}\nspec: {{registry: '{registry}'}}\n"
        )
        builder = root / "builders" / "toy"
        builder.mkdir(parents=True)
        (builder / "builder.yaml").write_text(
            "protocol: 1\nname: toy\nactions: [import, optimize, evaluate]\nformats: [onnx]\n"
            "engines: [onnxruntime]\n"
        )
        (builder / "requirements.lock").write_text("# nothing\n")
        (builder / "build.py").write_text(_BUILD)
        rows = np.zeros((4, 2), np.float32)
        np.savez(root / "calibration.npz", x=rows + 1)
        np.savez(root / "evaluation.npz", x=rows, label=rows[:, 0])
        np.savez(root / "golden.npz", x=rows, y=rows)
        made.model()
        made.fleet()
        write_key_pair(root / "keys" / "cosign", generate(), PASSWORD.encode())
        return made

    def copy(self, root: Path) -> Self:
        """The same project elsewhere, keys and releases included: sealing keys takes a second."""
        shutil.copytree(self.root, root)
        return type(self)(root)

    def init_trust(self) -> None:
        """Make the release metadata."""
        self.workspace().release_repository(PASSWORD.encode).init()

    def model(
        self,
        name: str = "digits",
        version: str = "1.0.0",
        *,
        says: dict[str, Any] | None = None,
        precision: str = "int8",
        evaluated: bool = True,
        source: str | None = None,
    ) -> None:
        """Write one version of a model; `says` goes into its file."""
        file = f"{name}-{version}.onnx"
        (self.root / file).write_text(json.dumps({"accuracy": 0.97, **(says or {})}))
        evaluation = (
            "  evaluation: {path: evaluation.npz}\n  gates: {accuracy: {min: 0.9}}\n"
            if evaluated
            else ""
        )
        (self.root / f"{name}-{version}.yaml").write_text(
            f"{_HEAD}kind: Model\nmetadata: {{name: {name}}}\nspec:\n"
            f"  version: {version}\n  task: classification\n  license: Apache-2.0\n"
            f"  source: {{format: onnx, {source or f'path: {file}'}}}\n"
            "  inputs: [{name: x, datatype: FP32, shape: [-1, 2]}]\n"
            "  outputs: [{name: y, datatype: FP32, shape: [-1, 2]}]\n"
            "  calibration: {path: calibration.npz}\n  golden: {path: golden.npz}\n"
            f"  optimize: {{precision: {precision}}}\n{evaluation}"
        )

    def fleet(
        self,
        *models: str,
        name: str = "shop",
        targets: Sequence[str] = TARGETS,
        rings: Sequence[str] = ("canary", "stable"),
    ) -> None:
        """Write a fleet of `models`, each `name` or `name:version`; the last ring is the rest."""
        refs = [model.partition(":") for model in models or ("digits",)]
        wanted = ", ".join(
            f"{{name: {ref[0]}" + (f", version: {ref[2]}}}" if ref[2] else "}") for ref in refs
        )
        steps = [f"{{name: {ring}, selector: {{matchLabels: {{ring: {ring}}}}}}}" for ring in rings]
        steps[-1] = f"{{name: {rings[-1]}}}"
        (self.root / f"fleet-{name}.yaml").write_text(
            f"{_HEAD}kind: Fleet\nmetadata: {{name: {name}}}\nspec:\n"
            f"  targets: [{', '.join(targets)}]\n  models: [{wanted}]\n"
            f"  rings: [{', '.join(steps)}]\n"
        )

    def workspace(self, access: Access | None = None) -> Workspace:
        """The project, opened anew."""
        return Workspace.open(self.root, access or Access())

    def repository(self, name: str = "models/digits") -> Repository:
        """A repository of its registry."""
        return self.workspace().store.repository(name)

    def plan(self, selection: Selection | None = None) -> Plan:
        """What apply would do."""
        return self.workspace().plan(selection)

    def apply(
        self,
        selection: Selection | None = None,
        *,
        plan: Plan | None = None,
        events: Events | None = None,
        jobs: int = 2,
    ) -> Report:
        """Plan and apply."""
        plan = plan or self.plan(selection)
        password = PASSWORD.encode()
        return Applier(self.workspace(), plan, password, jobs=jobs, events=events).run()
