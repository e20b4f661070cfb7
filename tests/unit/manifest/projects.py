"""Projects made for a test, around the manifests it is about."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

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
    (root / "data" / "model.onnx").touch()
    images, logits = np.zeros((4, 1, 8, 8), np.float32), np.zeros((4, 10), np.float32)
    np.savez(root / "data" / "calibration.npz", image=images)
    np.savez(root / "data" / "evaluation.npz", image=images, label=np.arange(4))
    np.savez(root / "data" / "golden.npz", image=images, logits=logits)
    return root
