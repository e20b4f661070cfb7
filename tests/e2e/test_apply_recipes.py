"""One apply over every recipe: ten source formats in, eight families of hardware out."""

from __future__ import annotations

import platform
import re
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from edgectl.manifest.load import load_project
from tests.support.project import Project

if TYPE_CHECKING:
    from pathlib import Path

    from edgectl.manifest.collection import ManifestSet

pytestmark = pytest.mark.slow

FORMATS = {
    "onnx", "pytorch", "tensorflow", "tflite", "openvino", "tensorrt", "coreml", "sklearn",
    "xgboost", "huggingface",
}  # fmt: skip
FAMILIES = {
    "jetson", "intel-nuc", "raspberry-pi", "android", "ios", "cortex-m", "esp32", "arduino"
}  # fmt: skip

# A TensorRT engine is built where TensorRT is. This has the first bytes of one, which is all that
# is looked at before the device that it is pinned to.
ENGINE = b"ftrt" + bytes(range(200))
ENGINE_MANIFESTS = """
apiVersion: edgectl.dev/v1alpha1
kind: Model
metadata: {name: welds}
spec:
  version: 1.0.0
  task: regression
  source: {format: tensorrt, path: welds.engine}
  inputs: [{name: x, datatype: FP32, shape: [1, 4]}]
  outputs: [{name: y, datatype: FP32, shape: [1, 1]}]
  evaluation: {path: welds.npz, labels: depth}
  golden: {path: welds-golden.npz}
---
apiVersion: edgectl.dev/v1alpha1
kind: Target
metadata: {name: jetson-jetpack-6}
spec:
  platform: {os: linux, architecture: arm64}
  family: jetson
  profile: medium
  cpu: {model: Arm Cortex-A78AE, cores: 6}
  accelerators: [{kind: gpu, model: NVIDIA Ampere, computeCapability: "8.7"}]
  memory: 8Gi
  storage: 64G
  engine: {name: tensorrt, version: "==10.3.0"}
  precisions: [fp16]
---
apiVersion: edgectl.dev/v1alpha1
kind: Fleet
metadata: {name: engines}
spec:
  selector: {matchLabels: {kind: engines}}
  targets: [jetson-jetpack-6]
  models: [{name: welds}]
  rings: [{name: all}]
"""


def add_engine(folder: Path) -> None:
    """A model whose source is a TensorRT engine, with a Target and a Fleet for it."""
    (folder / "welds.engine").write_bytes(ENGINE)
    rows = np.random.default_rng(0).random((8, 4), np.float32)
    depths = rows.sum(axis=1, keepdims=True)
    np.savez(folder / "welds.npz", x=rows, depth=depths[:, 0])
    np.savez(folder / "welds-golden.npz", x=rows[:1], y=depths[:1])
    (folder / "welds.yaml").write_text(ENGINE_MANIFESTS)


class Applied:
    """A project with everything applied, and what was said of it."""

    def __init__(self, project: Project) -> None:
        self.project = project
        self.loaded: ManifestSet = load_project(project.root)
        self.said: dict[str, Any] = project.run("apply", "--jobs", "2", "-o", "json").json
        self.variants = {
            (each["model"], each["report"]["target"]): each for each in self.said["measured"]
        }


@pytest.fixture(scope="module")
def applied(tmp_path_factory: pytest.TempPathFactory) -> Applied:
    project = Project(tmp_path_factory.mktemp("recipes") / "repo", recipes=True)
    add_engine(project.root / "models")
    for target in (project.root / "targets").glob("*.yaml"):
        # The machine of a test shares its cores: what it does in time says nothing about a NUC.
        target.write_text(re.sub(r"latency: \S+,", "latency: 10s,", target.read_text()))
    return Applied(project)


def test_every_format_gets_to_every_family(applied: Applied) -> None:
    assert applied.said["failures"] == []
    assert applied.said["withheld"] == {}
    models, targets = applied.loaded.models, applied.loaded.targets
    made = [(model.partition(":")[0], target) for model, target in applied.variants]
    formats = {model.spec.source.format for (name, _), model in models.items()
               if name in {each for each, _ in made}}  # fmt: skip
    assert formats == FORMATS
    assert {targets[target].spec.family for _, target in made} >= FAMILIES
    released = {release["fleet"] for release in applied.said["releases"]}
    assert released == set(applied.loaded.fleets)


def test_every_variant_is_there_and_verified(applied: Applied) -> None:
    project = applied.project
    for model in sorted({model for model, _ in applied.variants}):
        reference = project.reference(f"models/{model}")
        said = project.must("verify", reference, "--key", project.public_key, "-o", "json").json
        assert said["verified"], model
    assert "Nothing to apply" in project.must("apply").out


def test_quality_is_measured_wherever_an_engine_runs_here(applied: Applied) -> None:
    """Core ML needs a Mac and a TensorRT engine its GPU; the rest is measured on the host."""
    left = {(model, target) for (model, target), each in applied.variants.items()
            if not each["report"]["metrics"]}  # fmt: skip
    assert left == {
        ("glyphs-coreml:1.0.0", "iphone"),
        ("glyphs:1.0.0", "iphone"),
        ("welds:1.0.0", "jetson-jetpack-6"),
    }
    for key in left:
        report = applied.variants[key]["report"]
        assert "device" in report["deferred"], "what is not measured says who measures it"


def test_no_time_of_this_machine_is_shown_as_that_of_another(applied: Applied) -> None:
    host = {"x86_64": "amd64", "aarch64": "arm64"}[platform.machine()]
    targets = applied.loaded.targets
    timed = {
        target
        for (_, target), each in applied.variants.items()
        if "p50" in each["report"]["latency"]
    }
    assert timed
    for target in timed:
        spec = targets[target].spec
        assert spec.platform.architecture == host
        assert spec.engine.device in {None, "CPU"}
