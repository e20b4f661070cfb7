"""Observed: what the registry says now, as far as a plan depends on it."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

from edgectl.digest import Digest, canonical_json
from edgectl.errors import IntegrityError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from edgectl.desired import ModelKey
    from edgectl.trust.release import FleetRelease

PARTIAL = "partial of "
"""Before the key of a sign step that signed without some of its inputs."""
APPLIED_TYPE = "application/vnd.edgectl.applied.v1+json"


@dataclass(frozen=True, slots=True)
class Applied:
    """The record that `apply` leaves when a model version is complete: built, signed and tagged.

    Stored under the tag `applied-<version>` of the model's repository. It lets a plan tell an
    unchanged model from a changed one with one read, and say what changed.
    """

    key: str
    """Key of the sign step, which stands for everything that the version was made from."""
    index: Digest
    image: Digest
    variants: Mapping[str, Digest]
    """Target to the digest of its model manifest."""
    inputs: Mapping[str, str]
    """What the version was made from, by name, for saying what changed."""

    def to_bytes(self) -> bytes:
        """Canonical JSON."""
        return canonical_json(
            {
                "key": self.key,
                "index": str(self.index),
                "image": str(self.image),
                "variants": {target: str(digest) for target, digest in self.variants.items()},
                "inputs": dict(self.inputs),
            }
        )

    @property
    def is_partial(self) -> bool:
        """Whether some variant had failed, so that the version lacks it."""
        return self.key.startswith(PARTIAL)

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Parse; raises IntegrityError if malformed."""
        try:
            value: dict[str, Any] = json.loads(data)
            if not all(name.isprintable() for name in value["inputs"]):
                raise ValueError("a name that cannot be printed")
            return cls(
                str(value["key"]),
                Digest.parse(value["index"]),
                Digest.parse(value["image"]),
                {str(k): Digest.parse(v) for k, v in value["variants"].items()},
                {str(k): str(v) for k, v in value["inputs"].items()},
            )
        except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
            raise IntegrityError(f"malformed applied record: {error!r}") from error


def applied_tag(version: str) -> str:
    """The tag that the applied record of a model version is found under."""
    return f"applied-{version}"


@dataclass(frozen=True, slots=True)
class ObservedModel:
    """One model version in the registry."""

    applied: Applied | None = None
    index: Digest | None = None
    """What the version's tag in `models/<model>` points at."""
    image: Digest | None = None
    """What the version's tag in `images/<model>` points at."""
    cached: frozenset[str] = frozenset()
    """Keys of the steps whose results are there."""

    @property
    def intact(self) -> bool:
        """Whether the tags still point at what apply left."""
        return self.applied is not None and (self.index, self.image) == (
            self.applied.index,
            self.applied.image,
        )


@dataclass(frozen=True, slots=True)
class Observed:
    """The registry."""

    models: Mapping[ModelKey, ObservedModel] = field(default_factory=dict)
    releases: Mapping[str, FleetRelease] = field(default_factory=dict)
    """Fleet to its current release."""
