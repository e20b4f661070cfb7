"""Declared pre- and post-processing: the same code in evaluation, warm-up and serving.

A declaration is a mapping with one key, the transform's name, and its parameters; all of them
are in docs/transforms.md. `check` and `check_together` read them without numpy or any codec.
"""

from __future__ import annotations

from edgectl.engine.transforms.answers import Run, postprocess, scores
from edgectl.engine.transforms.checks import check, check_together, detector
from edgectl.engine.transforms.detection import Detections, Nms
from edgectl.engine.transforms.geometry import Geometry
from edgectl.engine.transforms.image import pixel_count
from edgectl.engine.transforms.preparing import (
    Prepared,
    accepts_encoded,
    asset_names,
    encoded_kind,
    load_assets,
    preprocess,
    sharing,
)
from edgectl.engine.transforms.registry import canonical
from edgectl.engine.transforms.scores import Classes

__all__ = [
    "Classes", "Detections", "Geometry", "Nms", "Prepared", "Run", "accepts_encoded",
    "asset_names", "canonical", "check", "check_together", "detector", "encoded_kind",
    "load_assets", "pixel_count", "postprocess", "preprocess", "scores", "sharing",
]  # fmt: skip
