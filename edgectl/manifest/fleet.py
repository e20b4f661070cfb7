"""`Fleet`: which devices run which models, and ring by ring in what order they get them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from edgectl.manifest.base import (
    Element,
    Fault,
    Fraction,
    KnownKeys,
    Labels,
    Lax,
    Manifest,
    Name,
    Seconds,
    written,
)
from edgectl.manifest.model import Version

if TYPE_CHECKING:
    from collections.abc import Iterator


class Selector(Element):
    """Which devices: all labels must match, and of those a share may be taken."""

    match_labels: Labels = Field(
        default_factory=dict,
        description="Labels that a device must have.",
        examples=[{"site": "berlin"}],
    )
    share: Fraction = Field(
        default=written("100%"),
        description="Share of the devices, chosen by a hash of their ids: the same ones each time.",
        examples=["10%"],
    )

    @property
    def is_everyone(self) -> bool:
        """Whether it leaves nobody out."""
        return not self.match_labels and self.share >= 1.0


class ModelReference(Element):
    """A model, at a version."""

    name: Name = Field(description="Name of a Model.", examples=["digits"])
    version: Version | None = Field(
        default=None,
        description="Its version. Without it: the newest Model manifest of the name.",
        examples=["1.0.0"],
    )


class Soak(Element):
    """Probation: how long a new model serves in this ring before it counts as good, and what
    sends it back."""

    duration: Seconds = Field(
        default=written("0s"), description="How long it lasts.", examples=["30m"]
    )
    max_error_rate: Fraction = Field(
        default=written("1%"),
        description="Most failed requests, of all since the switch.",
        examples=["1%"],
    )
    min_accuracy: Annotated[dict[Name, Fraction], KnownKeys] = Field(
        default_factory=dict,
        description="Per model, the least accuracy on the labelled samples that a device holds.",
        examples=[{"digits": 0.9}],
    )


class Ring(Element):
    """One stage of a rollout. A device belongs to the first ring that selects it."""

    name: Name = Field(description="Unique in the fleet.", examples=["canary"])
    selector: Selector | None = Field(
        default=None,
        description="Which devices of the fleet. Only the last ring may leave it out: it takes "
        "everyone else.",
        examples=[{"matchLabels": {"ring": "canary"}}],
    )
    soak: Soak = Field(
        default_factory=Soak,
        description="Probation in this ring.",
        examples=[{"duration": "30m"}],
    )


class FleetSpec(Element):
    """Devices, models and rings."""

    selector: Selector = Field(
        default_factory=Selector,
        description="Which devices belong to the fleet.",
        examples=[{"matchLabels": {"site": "berlin"}}],
    )
    targets: Annotated[tuple[Name, ...], Lax] = Field(
        min_length=1,
        description="Names of the Targets to build for: every hardware in the fleet.",
        examples=[["intel-nuc", "raspberry-pi-5"]],
    )
    models: Annotated[tuple[ModelReference, ...], Lax] = Field(
        min_length=1,
        description="What the devices run.",
        examples=[[{"name": "digits", "version": "1.0.0"}]],
    )
    rings: Annotated[tuple[Ring, ...], Lax] = Field(
        min_length=1,
        description="The stages of a rollout, in order.",
        examples=[[{"name": "stable"}]],
    )

    def faults(self) -> Iterator[Fault]:
        """Names said twice; rings that no device can reach."""
        for what, names in (
            ("targets", self.targets),
            ("models", tuple(model.name for model in self.models)),
            ("rings", tuple(ring.name for ring in self.rings)),
        ):
            seen: set[str] = set()
            for number, name in enumerate(names):
                if name in seen:
                    yield Fault(f"{name!r} is already in the list", (what, number))
                seen.add(name)
        for number, ring in enumerate(self.rings[:-1]):
            if ring.selector is None or ring.selector.is_everyone:
                fault = "takes every device, so later rings get none: select, or put it last"
                yield Fault(fault, ("rings", number))


class Fleet(Manifest):
    """A group of devices that run the same models."""

    kind: Literal["Fleet"] = Field(description="The kind.", examples=["Fleet"])
    spec: FleetSpec = Field(
        description="What the fleet runs.", examples=[{"targets": ["intel-nuc"]}]
    )
