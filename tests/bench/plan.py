"""Planning and applying many models: what one variant costs, and whether that stays flat."""

from __future__ import annotations

import shutil
import tempfile
import time
from pathlib import Path

from edgectl.apply.run import Applier
from edgectl.apply.workspace import Workspace
from edgectl.oci.access import Access
from edgectl.quantity import format_seconds
from edgectl.trust.keyfile import write_key_pair
from edgectl.trust.keys import generate
from tests.support.project import REPOSITORY

_TARGETS = ("intel-nuc", "raspberry-pi-5", "raspberry-pi-4", "jetson-orin-nano", "server-amd64")
_MODELS = REPOSITORY / "manifests/models"
_PLANNED = (1, 10, 100, 1000)
_APPLIED = 200
_REPEATS = 5
_PASSWORD = b"bench"
_BUILD = '''\
"""A toolchain that copies: the benchmark is about everything around the toolchains."""

import shutil

from edgectl.build.protocol import Done, main


def copy(task):
    shutil.copy(task.inputs.get("source") or task.inputs["model"], "model.onnx")
    return Done({"model": "model.onnx"}, {})


main({"import": copy, "optimize": copy})
'''


def main() -> None:
    """Print the tables of docs/benchmarks.md."""
    head = ("models x 5 targets", "plan", "of it reading manifests", "per variant", "per added one")
    print(f"| {' | '.join(head)} |\n|{'---|' * len(head)}")
    fewer, sooner = 0, 0.0
    for count in _PLANNED:
        with tempfile.TemporaryDirectory() as folder:
            root = _project(Path(folder), count, _shipped())
            load, plan = min((_plan(root) for _ in range(_REPEATS)), key=sum)
        variants, seconds = count * len(_TARGETS), load + plan
        added = format_seconds((seconds - sooner) / (variants - fewer)) if fewer else ""
        print(
            f"| {count} | {format_seconds(seconds)} | {format_seconds(load)} "
            f"| {format_seconds(seconds / variants)} | {added} |"
        )
        fewer, sooner = variants, seconds
    print("\n| apply, 1,000 variants, layout store | wall time | per variant |\n|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        root = _project(Path(folder), _APPLIED, _without(_shipped(), "evaluation:", "gates:"))
        _copying_builder(root / "builders" / "onnx")
        for title in ("everything, with toolchains that copy", "nothing to do"):
            seconds = _apply(root)
            each = format_seconds(seconds / _APPLIED / len(_TARGETS))
            print(f"| {title} | {format_seconds(seconds)} | {each} |")


def _plan(root: Path) -> tuple[float, float]:
    """Seconds for reading the manifests, and for the rest of a plan."""
    started = time.perf_counter()
    workspace = Workspace.open(root, Access())
    loaded = time.perf_counter()
    workspace.plan()
    return loaded - started, time.perf_counter() - loaded


def _apply(root: Path) -> float:
    started = time.perf_counter()
    workspace = Workspace.open(root, Access())
    plan = workspace.plan()
    if plan.changed:
        Applier(workspace, plan, _PASSWORD).run().raise_failure()
    return time.perf_counter() - started


def _shipped() -> str:
    """The manifest of the model that every model here is like."""
    return (_MODELS / "digits.yaml").read_text()


def _project(folder: Path, count: int, manifest: str) -> Path:
    """A project of `count` models, each with files of its own, in one fleet for five targets."""
    root = folder / "repo"
    source = (_MODELS / "digits-1.0.0.onnx").read_bytes()
    for number in range(count):
        name = f"model-{number:04}"
        directory = root / "models" / name
        shutil.copytree(_MODELS.parent / "data/digits/1.0.0", directory)
        text = manifest.replace("name: digits", f"name: {name}")
        (directory / "model.yaml").write_text(text.replace("../data/digits/1.0.0/", ""))
        (directory / "digits-1.0.0.onnx").write_bytes(source + name.encode())
    names = "".join(f"    - name: model-{number:04}\n" for number in range(count))
    (root / "fleet.yaml").write_text(
        "apiVersion: edgectl.dev/v1alpha1\nkind: Fleet\nmetadata:\n  name: many\nspec:\n"
        f"  targets: [{', '.join(_TARGETS)}]\n  models:\n{names}  rings:\n    - name: all\n"
    )
    (root / "edgectl.yaml").write_text(
        "apiVersion: edgectl.dev/v1alpha1\nkind: Project\nmetadata:\n  name: bench\n"
        "spec:\n  registry: oci-layout:registry\n"
    )
    (root / "keys").mkdir()
    write_key_pair(root / "keys" / "cosign", generate(), _PASSWORD)
    Workspace.open(root, Access()).release_repository(lambda: _PASSWORD).init()
    return root


def _copying_builder(directory: Path) -> None:
    directory.mkdir(parents=True)
    (directory / "build.py").write_text(_BUILD)
    (directory / "requirements.lock").write_text("# nothing\n")
    (directory / "builder.yaml").write_text(
        "protocol: 1\nname: onnx\nactions: [import, optimize]\nformats: [onnx]\n"
        "engines: [onnxruntime]\n"
    )


def _without(text: str, *sections: str) -> str:
    """A manifest without some two-space sections of its spec."""
    kept, skipping = [], False
    for line in text.splitlines(keepends=True):
        if line.startswith("  ") and line[2] not in {" ", "-"}:
            skipping = line.strip().startswith(sections)
        if not skipping:
            kept.append(line)
    return "".join(kept)


if __name__ == "__main__":
    main()
