"""The fleet release document: what each ring of a fleet is to run.

One document a fleet, `fleets/<fleet>.json`, a TUF target. Written by `edgectl apply`, `rollout`
and `rollback`; read by every device. A pure type: TUF makes it trustworthy, not this.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

from edgectl.digest import Digest, canonical_json
from edgectl.errors import TrustError
from edgectl.oci.filesystem import is_plain_name
from edgectl.oci.reference import is_repository_name

if TYPE_CHECKING:
    from collections.abc import Mapping

API_VERSION = "edgectl.dev/v1alpha1"
MAX_RELEASE_BYTES = 4 << 20
_MALFORMED = (KeyError, TypeError, ValueError, AttributeError, RecursionError, OverflowError)


@dataclass(frozen=True, slots=True)
class Selector:
    """Which devices: every label must match, and the device's hash must fall in the share."""

    match_labels: Mapping[str, str] = field(default_factory=dict)
    share: float = 1.0
    """Fraction of devices, 0 to 1, chosen by a hash of fleet, ring and device id."""

    def matches(self, salt: str, device_id: str, labels: Mapping[str, str]) -> bool:
        """Whether a device is selected; the same answer for the same device every time."""
        if any(labels.get(key) != value for key, value in self.match_labels.items()):
            return False
        if self.share >= 1.0:
            return True
        hashed = hashlib.sha256(f"{salt}\0{device_id}".encode()).digest()
        return int.from_bytes(hashed[:8], "big") / 2**64 < self.share


@dataclass(frozen=True, slots=True)
class ModelRef:
    """A model index pinned by digest."""

    name: str
    version: str
    repository: str
    """Below the registry location, for example `models/digits`."""
    digest: Digest


@dataclass(frozen=True, slots=True)
class SoakSettings:
    """How long a new slot serves on probation, and what ends the probation early."""

    duration: float = 0.0
    """Seconds."""
    max_error_rate: float = 0.01
    """Failed over all inference requests since the switch, 0 to 1."""
    min_accuracy: Mapping[str, float] = field(default_factory=dict)
    """Per model: least accuracy on the labelled samples that the device holds, 0 to 1."""


@dataclass(frozen=True, slots=True)
class Ring:
    """One stage of a rollout."""

    name: str
    selector: Selector
    soak: SoakSettings
    models: tuple[ModelRef, ...]


@dataclass(frozen=True, slots=True)
class Held:
    """A model version that an operator rolled back: apply does not release it again."""

    model: str
    version: str
    digest: Digest
    reason: str


@dataclass(frozen=True, slots=True)
class FleetRelease:
    """What every ring of one fleet is to run."""

    fleet: str
    generation: int
    """Counts the releases of this fleet from 1; never reused, also by a rollback."""
    selector: Selector
    rings: tuple[Ring, ...]
    held: tuple[Held, ...] = ()
    reason: str = ""
    """What made this release, for people: `apply`, `rollout advance`, `rollback to 3`."""

    def ring_of(self, device_id: str, labels: Mapping[str, str]) -> Ring | None:
        """The first ring that selects the device; None if the fleet or every ring does not."""
        if not self.selector.matches(self.fleet, device_id, labels):
            return None
        for ring in self.rings:
            if ring.selector.matches(f"{self.fleet}/{ring.name}", device_id, labels):
                return ring
        return None

    def to_bytes(self) -> bytes:
        """Canonical JSON."""
        return canonical_json(
            {
                "apiVersion": API_VERSION,
                "kind": "FleetRelease",
                "fleet": self.fleet,
                "generation": self.generation,
                "reason": self.reason,
                "selector": _selector_json(self.selector),
                "rings": [
                    {
                        "name": ring.name,
                        "selector": _selector_json(ring.selector),
                        "soak": {
                            "duration": ring.soak.duration,
                            "maxErrorRate": ring.soak.max_error_rate,
                            "minAccuracy": dict(ring.soak.min_accuracy),
                        },
                        "models": [
                            {
                                "name": model.name,
                                "version": model.version,
                                "repository": model.repository,
                                "digest": str(model.digest),
                            }
                            for model in ring.models
                        ],
                    }
                    for ring in self.rings
                ],
                "held": [
                    {
                        "model": held.model,
                        "version": held.version,
                        "digest": str(held.digest),
                        "reason": held.reason,
                    }
                    for held in self.held
                ],
            }
        )

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Parse; raises TrustError if the document is malformed or of another version."""
        try:
            value = json.loads(data)
            if (value["apiVersion"], value["kind"]) != (API_VERSION, "FleetRelease"):
                raise ValueError(f"{value['apiVersion']} {value['kind']}")
            return cls(
                fleet=value["fleet"],
                generation=int(value["generation"]),
                reason=str(value.get("reason", "")),
                selector=_selector(value["selector"]),
                rings=tuple(_ring(ring) for ring in value["rings"]),
                held=tuple(
                    Held(h["model"], h["version"], Digest.parse(h["digest"]), h["reason"])
                    for h in value.get("held", ())
                ),
            )
        except _MALFORMED as error:
            raise TrustError(
                f"fleet release is malformed: {error!r}",
                hint="is this edgectl older than the one that released?",
            ) from error


def _selector_json(selector: Selector) -> dict[str, Any]:
    return {"matchLabels": dict(selector.match_labels), "share": selector.share}


def _selector(value: Mapping[str, Any]) -> Selector:
    labels = {str(key): str(label) for key, label in value["matchLabels"].items()}
    return Selector(labels, _number(value["share"]))


def _ring(value: Mapping[str, Any]) -> Ring:
    soak = value["soak"]
    models = tuple(_model(model) for model in value["models"])
    if len({model.name for model in models}) != len(models):
        raise ValueError(f"ring {value['name']!r} names a model twice")
    return Ring(
        name=str(value["name"]),
        selector=_selector(value["selector"]),
        soak=SoakSettings(
            _number(soak["duration"]),
            _number(soak["maxErrorRate"]),
            {str(name): _number(least) for name, least in soak["minAccuracy"].items()},
        ),
        models=models,
    )


def _model(value: Mapping[str, Any]) -> ModelRef:
    """Names that become paths and URLs on a device, where being signed makes none harmless."""
    name, repository = value["name"], value["repository"]
    if not is_plain_name(name):
        raise ValueError(f"{name!r} is not a model name")
    if not is_repository_name(repository):
        raise ValueError(f"{repository!r} is not a repository")
    return ModelRef(name, str(value["version"]), repository, Digest.parse(value["digest"]))


def _number(value: Any) -> float:
    """A number that comparisons hold for: no NaN, nothing infinite or negative."""
    number = float(value)
    if not 0 <= number < math.inf:
        raise ValueError(f"{value!r} is not a number from 0")
    return number
