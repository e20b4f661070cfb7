"""How a TensorRT engine is built on the device: `recipe.json`, beside the model it is for.

A builder writes it, the adapter of TensorRT reads it. Its canonical bytes are part of the name that
a built engine has in the cache, so a recipe that changes is an engine that is built again.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from edgectl.engine.errors import EngineError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

RECIPE_FILE = "recipe.json"
PLAN_FILE = "model.plan"
PLAN_MAGIC = b"ftrt"
"""What every serialised TensorRT engine begins with."""

SCHEMA_VERSION = 1
COMPATIBILITIES = ("none", "same-compute-capability", "ampere-plus")
_MAX_BYTES = 64 << 10
_LEVELS = range(6)
_VERSION = re.compile(r"\d+(\.\d+){0,3}")
_CAPABILITY = re.compile(r"\d+\.\d+")


@dataclass(frozen=True, slots=True)
class Batch:
    """The batch sizes that an engine is built for, and the one that it is tuned for."""

    minimum: int
    optimum: int
    maximum: int

    def __post_init__(self) -> None:
        if not 1 <= self.minimum <= self.optimum <= self.maximum:
            raise ValueError(
                f"batch {self.minimum}, {self.optimum}, {self.maximum} is not "
                "1 <= min <= opt <= max"
            )


@dataclass(frozen=True, slots=True)
class Dla:
    """A deep learning accelerator beside the GPU of a Jetson."""

    core: int
    gpu_fallback: bool
    """Whether layers that the core cannot run are left to the GPU, instead of a failed build."""


@dataclass(frozen=True, slots=True)
class Pins:
    """All that a serialised engine runs on."""

    tensorrt: str
    """Exact version, as far as it is given: `10.3` fits 10.3.0."""
    compute_capability: str


@dataclass(frozen=True, slots=True)
class Recipe:
    """What the builder of TensorRT is asked for."""

    precision: str
    strongly_typed: bool = True
    """Every tensor has the type that the model gives it. The only way there is from 11.0 on."""
    batch: Batch | None = None
    """None where the model fixes its batch."""
    workspace: int | None = None
    """Most bytes of GPU memory that a layer may use beside its tensors; None for all there is."""
    dla: Dla | None = None
    timing_cache: bool = True
    """Whether measured kernels are kept, so that the next engine is built in a fraction of the
    time."""
    optimization_level: int = 3
    minimum_version: str = "10.0"
    """Oldest TensorRT whose parser takes all operators of the model."""
    hardware_compatibility: str = "none"
    pins: Pins | None = None
    """Set where the model is an engine already (`model.plan`), and nothing is left to build."""

    def to_bytes(self) -> bytes:
        """Canonical JSON: the same recipe is the same bytes."""
        value = {
            "schemaVersion": SCHEMA_VERSION,
            "precision": self.precision,
            "stronglyTyped": self.strongly_typed,
            "batch": self.batch and {
                "min": self.batch.minimum, "opt": self.batch.optimum, "max": self.batch.maximum,
            },
            "workspace": self.workspace,
            "dla": self.dla and {"core": self.dla.core, "gpuFallback": self.dla.gpu_fallback},
            "timingCache": self.timing_cache,
            "optimizationLevel": self.optimization_level,
            "minVersion": self.minimum_version,
            "hardwareCompatibility": self.hardware_compatibility,
            "pins": self.pins and {
                "tensorrt": self.pins.tensorrt,
                "computeCapability": self.pins.compute_capability,
            },
        }  # fmt: skip
        return json.dumps(value, sort_keys=True, separators=(",", ":")).encode() + b"\n"

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Read what `to_bytes` wrote; raises ValueError for anything else."""
        try:
            value = json.loads(data)
            if value["schemaVersion"] != SCHEMA_VERSION:
                raise ValueError(f"schemaVersion {value['schemaVersion']!r} is not 1")
            recipe = cls(
                precision=str(value["precision"]),
                strongly_typed=bool(value["stronglyTyped"]),
                batch=_batch(value["batch"]),
                workspace=None if value["workspace"] is None else int(value["workspace"]),
                dla=_dla(value["dla"]),
                timing_cache=bool(value["timingCache"]),
                optimization_level=int(value["optimizationLevel"]),
                minimum_version=str(value["minVersion"]),
                hardware_compatibility=str(value["hardwareCompatibility"]),
                pins=_pins(value["pins"]),
            )
        except (KeyError, TypeError, AttributeError, RecursionError) as error:
            raise ValueError(f"it is malformed: {error!r}") from error
        recipe._check()
        return recipe

    def _check(self) -> None:
        if self.optimization_level not in _LEVELS:
            raise ValueError(f"optimizationLevel {self.optimization_level} is not 0 to 5")
        if self.hardware_compatibility not in COMPATIBILITIES:
            raise ValueError(
                f"hardwareCompatibility {self.hardware_compatibility!r} is not one of "
                + ", ".join(COMPATIBILITIES)
            )
        if not _VERSION.fullmatch(self.minimum_version):
            raise ValueError(f"minVersion {self.minimum_version!r} is not a version")
        if self.workspace is not None and self.workspace <= 0:
            raise ValueError(f"workspace {self.workspace} is not a number of bytes")


def read_recipe(path: Path) -> Recipe:
    """Read a `recipe.json`; raises EngineError if it is missing, too large or malformed."""
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_BYTES + 1)
    except OSError as error:
        raise EngineError(f"cannot read the build recipe {path}: {error.strerror}") from error
    if len(data) > _MAX_BYTES:
        raise EngineError(f"{path} is larger than {_MAX_BYTES} bytes")
    try:
        return Recipe.from_bytes(data)
    except ValueError as error:
        raise EngineError(f"{path} is not a build recipe: {error}") from error


def version_numbers(version: str) -> tuple[int, ...]:
    """The numbers of a version such as `10.3.0`; raises ValueError if there are none."""
    found = _VERSION.match(version)
    if found is None:
        raise ValueError(f"{version!r} is not a version")
    return tuple(int(part) for part in found[0].split("."))


def _batch(value: Mapping[str, Any] | None) -> Batch | None:
    if value is None:
        return None
    return Batch(int(value["min"]), int(value["opt"]), int(value["max"]))


def _dla(value: Mapping[str, Any] | None) -> Dla | None:
    if value is None:
        return None
    core = int(value["core"])
    if core < 0:
        raise ValueError(f"DLA core {core} does not exist")
    return Dla(core, bool(value["gpuFallback"]))


def _pins(value: Mapping[str, Any] | None) -> Pins | None:
    if value is None:
        return None
    pins = Pins(str(value["tensorrt"]), str(value["computeCapability"]))
    if not _VERSION.fullmatch(pins.tensorrt) or not _CAPABILITY.fullmatch(pins.compute_capability):
        raise ValueError(f"pins {pins.tensorrt!r}, {pins.compute_capability!r} are no versions")
    return pins
