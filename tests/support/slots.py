"""Model directories and slots as the agent leaves them, made from the repository's real models."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

from edgectl.digest import Digest, canonical_json
from edgectl.engine.signature import ModelSignature, TensorSpec
from edgectl.serve.slot import Slot, SlotModel, model_path, slot_path, switch_link, write_slot

MANIFESTS = Path(__file__).parents[2] / "manifests"
SAMPLES = MANIFESTS / "samples" / "digits"

IMAGE = TensorSpec(
    "image",
    "FP32",
    (-1, 1, 8, 8),
    (
        {"decode": {"mode": "L"}},
        {"resize": {"width": 8, "height": 8, "fit": "stretch"}},
        {"scale": {"factor": 1 / 255}},
        {"layout": "NCHW"},
    ),
)
LOGITS = TensorSpec(
    "logits", "FP32", (-1, 10), ({"softmax": {}}, {"topk": {"k": 3}}), tuple("0123456789")
)
DIGITS = ModelSignature(
    "digits",
    "1.0.0",
    "classification",
    (IMAGE,),
    (LOGITS,),
    {"name": "onnxruntime"},
    {"absolute": 0.5, "relative": 0.1, "top1": 1.0},
)


def make_digits(directory: Path, version: str = "1.0.0") -> Path:
    """Write the model directory of one version of the digits CNN, golden data included."""
    directory.mkdir(parents=True)
    shutil.copy(MANIFESTS / "models" / f"digits-{version}.onnx", directory / "model.onnx")
    shutil.copy(MANIFESTS / "data" / "digits" / version / "golden.npz", directory / "golden.npz")
    signature = replace(DIGITS, version=version)
    (directory / "signature.json").write_bytes(canonical_json(signature.to_json()))
    return directory


def make_slot(state: Path, version: str = "1.0.0", *, current: bool = True) -> Digest:
    """Stage a slot with one version of the digits model; make it `current`."""
    model = SlotModel(
        "digits",
        version,
        Digest.of(b"index " + version.encode()),
        Digest.of(b"manifest " + version.encode()),
        "server-amd64",
        "onnxruntime",
        "fp32",
    )
    slot = Slot("test", 1, "canary", (model,))
    make_digits(model_path(state, slot.digest, "digits"), version)
    write_slot(slot_path(state, slot.digest), slot)
    if current:
        switch_link(state, "current", slot.digest)
    return slot.digest
