"""Desired values for tests of plans: no manifests, files or builders needed."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edgectl.desired import (
    Desired,
    DesiredFleet,
    DesiredModel,
    DesiredRing,
    DesiredTarget,
    DesiredVariant,
    ModelKey,
    PinnedFile,
)
from edgectl.digest import Digest
from edgectl.engine.signature import TensorSpec
from edgectl.oci.descriptor import Platform
from edgectl.trust.release import Selector, SoakSettings


@dataclass(frozen=True, slots=True)
class Toolchain:
    """A `DesiredBuilder` that is in no folder."""

    name: str
    digest: Digest
    formats: tuple[str, ...] = ()
    engines: tuple[str, ...] = ()
    takes: tuple[str, ...] = ()
    compiles: str | None = None


def digest(text: str) -> Digest:
    """A digest that differs for different texts."""
    return Digest.of(text.encode())


ONNX = Toolchain("onnx", digest("onnx builder"), ("onnx",), ("onnxruntime",))
SKLEARN = Toolchain("sklearn", digest("sklearn builder"), ("sklearn",))
TFLM = Toolchain("tflm", digest("tflm builder"), engines=("tflm",), compiles="litert")


def pinned(text: str) -> PinnedFile:
    """A file that is never read."""
    return PinnedFile(digest(text), Path("/nonexistent") / text)


def target(name: str = "intel-nuc", **changes: Any) -> DesiredTarget:
    """A hardware profile."""
    value = DesiredTarget(
        name=name,
        platform=Platform("linux", "amd64"),
        family=name,
        engine="onnxruntime",
        engine_version=">=1.20",
        providers=("CPUExecutionProvider",),
        quantization={"activations": "uint8", "weights": "int8"},
        engine_options={},
        cpu_features=(),
        accelerators=(),
        cores=4,
        power=None,
        limits={"latency": 0.02},
    )
    return replace(value, **changes)


def model(
    name: str = "digits", version: str = "1.0.0", *targets: str, **changes: Any
) -> DesiredModel:
    """A model for some targets."""
    value = DesiredModel(
        name=name,
        version=version,
        task="classification",
        description="",
        license="Apache-2.0",
        source=pinned(f"{name}-{version}.onnx"),
        source_format="onnx",
        trust_code=False,
        inputs=(TensorSpec("image", "FP32", (-1, 1, 8, 8)),),
        outputs=(TensorSpec("logits", "FP32", (-1, 10)),),
        calibration=pinned(f"{name}-calibration"),
        calibration_params={"method": "minmax"},
        evaluation=pinned(f"{name}-evaluation"),
        evaluation_labels="label",
        own_metrics={},
        golden=pinned(f"{name}-golden"),
        golden_tolerance={"absolute": 0.5},
        assets={},
        compression={},
        gates={"accuracy": {"min": 0.9}},
        variants=tuple(DesiredVariant(target(t), "int8") for t in targets or ("intel-nuc",)),
    )
    return replace(value, **changes)


def fleet(
    *models: ModelKey,
    name: str = "shop",
    rings: tuple[str, ...] = ("canary", "stable"),
    targets: tuple[str, ...] = ("intel-nuc",),
) -> DesiredFleet:
    """A fleet; its first ring selects a label, the last one everybody."""
    return DesiredFleet(
        name,
        Selector(),
        targets,
        models or (("digits", "1.0.0"),),
        tuple(
            DesiredRing(
                ring,
                Selector({"ring": ring}) if at < len(rings) - 1 else Selector(),
                SoakSettings(),
            )
            for at, ring in enumerate(rings)
        ),
    )


def desired(*models: DesiredModel, fleets: tuple[DesiredFleet, ...] | None = None) -> Desired:
    """Everything together."""
    models = models or (model(),)
    if fleets is None:
        fleets = (fleet(*(m.key for m in models)),)
    return Desired(
        models,
        fleets,
        (ONNX, SKLEARN),
        ("signer",),
        pinned("model-card.md.j2"),
    )
