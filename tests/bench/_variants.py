"""Variants of models, made by edgectl's own plan and builders, without a registry."""

from __future__ import annotations

import dataclasses
import shutil
import threading
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from edgectl.build.builder import find_builder, find_builders
from edgectl.build.runner import Request, run
from edgectl.errors import EdgectlError
from edgectl.expand import expand
from edgectl.manifest.load import load_project
from edgectl.plan.chain import model_steps
from edgectl.plan.step import StepKind
from tests.support.project import REPOSITORY

if TYPE_CHECKING:
    from collections.abc import Mapping

    from edgectl.build.runner import Result
    from edgectl.desired import Desired, DesiredModel, DesiredVariant
    from edgectl.plan.step import Step

ENGINES = {
    "onnxruntime": ("fp32", "int8"), "openvino": ("fp32", "int8"), "litert": ("fp32", "int8"),
    "tflm": ("int8",),
}  # fmt: skip
"""Engines that run on any Linux machine, and the precisions to try; TFLM is for int8 alone."""

_QUANTIZATION = {
    "onnxruntime": "activations: uint8, symmetricActivations: false",
    "openvino": "activations: uint8, symmetricActivations: true",
    "litert": "activations: int8, symmetricActivations: false",
    "tflm": "activations: int8, symmetricActivations: false, boundary: int8",
}
"""As the shipped profiles say of these engines, for a CPU with VNNI; the rest is the default."""

_PROJECT = """\
apiVersion: edgectl.dev/v1alpha1
kind: Project
metadata:
  name: bench
spec:
  registry: oci-layout:registry
  manifests: [models, bench]
"""
_TARGET = """\
---
apiVersion: edgectl.dev/v1alpha1
kind: Target
metadata:
  name: {engine}-{precision}
spec:
  platform: {{os: linux, architecture: amd64}}
  family: server
  board: the machine that this runs on
  profile: high
  cpu: {{model: this one, cores: 1, features: [{features}]}}
  memory: 16Gi
  storage: 100G
  engine: {{name: {engine}, version: "{version}"}}
  precisions: [{precisions}]
  quantization: {{weights: int8, perChannel: true, {quantization}}}
"""
_FLEET = """\
---
apiVersion: edgectl.dev/v1alpha1
kind: Fleet
metadata:
  name: bench
spec:
  targets: [{targets}]
  models: [{models}]
  rings: [{{name: all}}]
"""


@dataclass(frozen=True, slots=True)
class Variant:
    """One model for one engine in one precision."""

    engine: str
    precision: str
    path: Path
    """The model file, or the directory with it."""
    toolchain: str
    """Name of the builder that evaluates it."""


@dataclass(slots=True)
class Recipe:
    """A model with its variants, and why others are not among them."""

    model: DesiredModel
    variants: list[Variant] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)
    """Engine to the reason."""


def cpu_features() -> tuple[str, ...]:
    """The instruction set extensions of this machine that quantisation asks about."""
    flags = set(Path("/proc/cpuinfo").read_text(encoding="utf-8").split())
    known = ("sse4_2", "avx2", "fma", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8", "asimd")
    return tuple(name for name in known if name in flags)


def plan(root: Path) -> Desired:
    """Every recipe for every engine, in a project made at `root`."""
    for part in ("models", "data"):
        shutil.copytree(REPOSITORY / "manifests" / part, root / part)
    (root / "edgectl.yaml").write_text(_PROJECT)
    pairs = [(engine, each) for engine, several in ENGINES.items() for each in several]
    features = ", ".join(cpu_features())
    documents = [
        _TARGET.format(
            engine=engine,
            precision=precision,
            features=features,
            precisions="fp32" if precision == "fp32" else "int8, fp32",
            quantization=_QUANTIZATION[engine],
            version=">=1.20" if engine == "onnxruntime" else ">=0",
        )
        for engine, precision in pairs
    ]
    models = sorted({name for name, _ in load_project(REPOSITORY / "manifests").models})
    documents.append(
        _FLEET.format(
            targets=", ".join(f"{engine}-{precision}" for engine, precision in pairs),
            models=", ".join(f"{{name: {name}}}" for name in models),
        )
    )
    (root / "bench").mkdir()
    (root / "bench" / "all.yaml").write_text("".join(documents))
    return expand(load_project(root), find_builders(), ())


def make(desired: Desired, work: Path, *, at_once: int) -> list[Recipe]:
    """Build every variant that some builder takes."""
    steps = _Steps(work)
    recipes = [Recipe(model) for model in desired.models]
    wanted = [(recipe, each) for recipe in recipes for each in recipe.model.variants]
    with ThreadPoolExecutor(at_once) as pool:
        made = list(pool.map(lambda pair: _make(pair[0], pair[1], desired, steps), wanted))
    for (recipe, each), result in zip(wanted, made, strict=True):
        if isinstance(result, Variant):
            recipe.variants.append(result)
        elif result:
            recipe.refused[each.target.engine] = result
    return recipes


def _make(
    recipe: Recipe, variant: DesiredVariant, desired: Desired, steps: _Steps
) -> Variant | str:
    """The variant, or why there is none; nothing to say where it would be another one again."""
    wanted = variant.target.name.rpartition("-")[2]
    if wanted != variant.precision and variant.precision == "fp32":
        return ""  # the manifest asks for fp32
    one = dataclasses.replace(recipe.model, variants=(variant,))
    try:
        (planned,) = model_steps(one, desired).variants
        path = [steps.make(step) for step in planned.built][-1]
    except EdgectlError as error:
        return error.message
    assert planned.evaluate is not None
    assert planned.evaluate.builder is not None
    return Variant(variant.target.engine, wanted, path, planned.evaluate.builder.name)


class _Steps:
    """Runs steps, each once; several threads may ask."""

    def __init__(self, work: Path) -> None:
        self._work = work
        self._made: dict[str, Path | EdgectlError] = {}
        self._locks: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)

    def make(self, step: Step) -> Path:
        """The model that a step makes, a file or a directory; raises EdgectlError."""
        with self._locks[step.key]:
            if step.key not in self._made:
                try:
                    self._made[step.key] = self._run(step)
                except EdgectlError as error:
                    self._made[step.key] = error
        found = self._made[step.key]
        if isinstance(found, EdgectlError):
            raise found
        return found

    def _run(self, step: Step) -> Path:
        assert step.builder is not None
        inputs = {role: file.path for role, file in step.files.items() if file.path is not None}
        inputs |= {role: self._earlier(key) for role, key in step.uses.items()}
        output = self._work / step.key
        name = ":".join(step.model or ())
        request = Request(StepKind(step.kind), name, inputs, step.params, output)
        return model_of(run(find_builder(step.builder.name), request))

    def _earlier(self, key: str) -> Path:
        """What an earlier step made."""
        found = self._made[key]
        assert isinstance(found, Path)
        return found


def model_of(result: Result) -> Path:
    """The model that an action made: its file, or the directory of its files."""
    files: Mapping[str, Path] = result.outputs
    if "model" in files:
        return files["model"]
    role, path = next((role, path) for role, path in files.items() if role.startswith("model/"))
    return path.parents[role.count("/") - 1]
