"""Projects made for a test, around the manifests it is about."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

PROJECT = """\
apiVersion: edgectl.dev/v1alpha1
kind: Project
metadata: {name: test}
spec: {registry: "oci-layout:registry"}
"""
BASE_MODEL = """\
apiVersion: edgectl.dev/v1alpha1
kind: Model
metadata: {name: base}
spec:
  version: 1.0.0
  task: classification
  source: {format: onnx, path: data/model.onnx}
  inputs: [{name: image, datatype: FP32, shape: [-1, 1, 8, 8]}]
  outputs: [{name: logits, datatype: FP32, shape: [-1, 10]}]
  calibration: {path: data/calibration.npz}
  golden: {path: data/golden.npz}
"""


def make_project(root: Path) -> Path:
    """A valid project: a registry, a model called base, and data files by the usual names."""
    root.mkdir(exist_ok=True)
    (root / "edgectl.yaml").write_text(PROJECT)
    (root / "base.yaml").write_text(BASE_MODEL)
    (root / "data").mkdir()
    for name in ("model.onnx", "calibration.npz", "evaluation.npz", "golden.npz"):
        (root / "data" / name).touch()
    return root
