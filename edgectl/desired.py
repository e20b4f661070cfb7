"""Desired: the manifests with defaults expanded and every reference pinned, once.

`edgectl.expand` makes it. After this nothing reads a manifest or hashes a source again: a plan is a
pure function of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from edgectl.digest import Digest
    from edgectl.engine.signature import TensorSpec
    from edgectl.oci.descriptor import Platform
    from edgectl.trust.release import Selector, SoakSettings

ModelKey = tuple[str, str]
"""A model's name and version."""


@dataclass(frozen=True, slots=True)
class PinnedFile:
    """A file or directory and its digest, which everything made from it depends on."""

    digest: Digest
    """Of the bytes; of a directory, `Digest.of_tree`; of the manifest, where `remote` is an OCI
    reference."""
    path: Path | None = None
    """Where it is on this machine."""
    remote: str | None = None
    """`https://…`, or an OCI reference pinned by digest: fetched when a step needs it."""


@dataclass(frozen=True, slots=True)
class DesiredTarget:
    """A hardware profile, reduced to what building for it depends on."""

    name: str
    platform: Platform
    family: str
    engine: str
    engine_version: str
    providers: tuple[str, ...]
    quantization: Mapping[str, Any]
    """Parameters of the quantiser, as a Target's `quantization` has them."""
    engine_options: Mapping[str, Any]
    """`device`, `workspace` (bytes) and `computeCapability`, as far as the target says."""
    cpu_features: tuple[str, ...]
    accelerators: tuple[str, ...]
    cores: int
    power: float | None
    """Typical watts under inference."""
    limits: Mapping[str, float]
    """`latency` in seconds; `peakMemory`, `modelSize`, `storage` and `arena` in bytes, as far as
    the target or its resource class says."""

    def requirements(self) -> dict[str, Any]:
        """What a device must have to run a variant, the `dev.edgectl.requires` annotation.

        The profile's `memory` and `storage` describe the hardware and are not demanded of a device,
        so they are not here at all: what a variant needs are its limits (`latency` in seconds,
        `peakMemory` in bytes) and its size, which packaging adds.
        """
        return {
            "family": self.family,
            "accelerators": list(self.accelerators),
            "cpuFeatures": list(self.cpu_features),
            "providers": list(self.providers),
            **{key: self.limits[key] for key in ("latency", "peakMemory") if key in self.limits},
        }


@dataclass(frozen=True, slots=True)
class DesiredVariant:
    """One model for one target."""

    target: DesiredTarget
    precision: str


@dataclass(frozen=True, slots=True)
class DesiredModel:
    """One version of one model, for every target that some fleet wants it on."""

    name: str
    version: str
    task: str
    description: str
    license: str
    source: PinnedFile
    source_format: str
    trust_code: bool
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    calibration: PinnedFile | None
    calibration_params: Mapping[str, Any]
    evaluation: PinnedFile | None
    evaluation_labels: str
    own_metrics: Mapping[str, tuple[PinnedFile, str]]
    """Name to a Python file and its function."""
    golden: PinnedFile
    golden_tolerance: Mapping[str, float]
    assets: Mapping[str, PinnedFile]
    """Files that transforms name, by the name that they have beside the model."""
    compression: Mapping[str, Any]
    """How weights are stored: empty, or `weights`, `bits` and `sparsity`."""
    gates: Mapping[str, Mapping[str, float]]
    """Metric to `min`, `max`, `maxDrop` and `maxRise`."""
    variants: tuple[DesiredVariant, ...]

    @property
    def key(self) -> ModelKey:
        """Name and version."""
        return (self.name, self.version)

    @property
    def repository(self) -> str:
        """Where its index lives, below the registry location."""
        return f"models/{self.name}"

    @property
    def image_repository(self) -> str:
        """Where its image index lives, below the registry location."""
        return f"images/{self.name}"


@dataclass(frozen=True, slots=True)
class DesiredRing:
    """One ring of a fleet, without its models: a rollout decides when it gets them."""

    name: str
    selector: Selector
    soak: SoakSettings


@dataclass(frozen=True, slots=True)
class DesiredFleet:
    """Which models a fleet is to end up with, on which targets, ring by ring."""

    name: str
    selector: Selector
    targets: tuple[str, ...]
    models: tuple[ModelKey, ...]
    rings: tuple[DesiredRing, ...]


class DesiredBuilder(Protocol):
    """What a plan depends on of a toolchain that is there: of an `edgectl.build.builder.Builder`,
    which a plan must not know."""

    @property
    def name(self) -> str:
        """Of its folder."""

    @property
    def formats(self) -> tuple[str, ...]:
        """Source formats that it imports."""

    @property
    def engines(self) -> tuple[str, ...]:
        """Engines that it makes variants for and evaluates on."""

    @property
    def takes(self) -> tuple[str, ...]:
        """Source formats that it makes variants of as they are, without ONNX in between."""

    @property
    def compiles(self) -> str | None:
        """The engine whose optimised variant it starts from."""

    @property
    def digest(self) -> Digest:
        """Of everything in its folder that can change what it makes; part of every step that it
        runs. Of a builder that takes part, it is taken before the plan."""


@dataclass(frozen=True, slots=True)
class Desired:
    """Everything the manifests ask for."""

    models: tuple[DesiredModel, ...]
    fleets: tuple[DesiredFleet, ...]
    builders: tuple[DesiredBuilder, ...] = ()
    signers: tuple[str, ...] = ()
    """Fingerprints of the public keys that signatures are made for."""
    model_card: PinnedFile | None = None
    """Template of model cards."""
    source_date_epoch: int = 0
    """The time that every file in an image carries."""
