"""Step: one piece of work, named by everything that its result depends on."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from edgectl.digest import Digest, canonical_json

if TYPE_CHECKING:
    from collections.abc import Mapping

    from edgectl.desired import DesiredBuilder, ModelKey, PinnedFile


class StepKind(StrEnum):
    """What a step does, in the order of a model's life."""

    IMPORT = "import"
    OPTIMIZE = "optimize"
    EVALUATE = "evaluate"
    PACKAGE = "package"
    INDEX = "index"
    IMAGE = "image"
    ATTEST = "attest"
    SIGN = "sign"
    RELEASE = "release"


REVISION: dict[StepKind, int] = dict.fromkeys(StepKind, 1)
"""Part of every key. Raised when edgectl's own code for a kind gives other results than before."""


@dataclass(frozen=True, slots=True)
class Step:
    """One piece of work. Same key, same result: the result is cached under `cache-<key>`."""

    kind: StepKind
    key: str
    """sha256, in hex, of the canonical JSON of kind, builder, inputs and params."""
    title: str
    """For people; not part of the key."""
    repository: str
    """Where the result is cached and published, below the registry location."""
    model: ModelKey | None = None
    target: str | None = None
    builder: str | None = None
    params: Mapping[str, Any] = field(default_factory=dict)
    files: Mapping[str, PinnedFile] = field(default_factory=dict)
    """Role to local input file."""
    uses: Mapping[str, str] = field(default_factory=dict)
    """Role to the key of the step whose result is an input."""

    @property
    def cache_tag(self) -> str:
        """The tag that the step's result is found under."""
        return f"cache-{self.key}"


def make_step(
    kind: StepKind,
    title: str,
    repository: str,
    *,
    builder: DesiredBuilder | None = None,
    params: Mapping[str, Any] | None = None,
    files: Mapping[str, PinnedFile] | None = None,
    uses: Mapping[str, Step] | None = None,
    model: ModelKey | None = None,
    target: str | None = None,
) -> Step:
    """Make a step and its key. `uses` names steps by role; their keys stand for their results."""
    files = files or {}
    uses = uses or {}
    identity = {
        "kind": kind,
        "revision": REVISION[kind],
        "builder": None if builder is None else [builder.name, str(builder.digest)],
        "inputs": {role: str(file.digest) for role, file in files.items()}
        | {role: f"step:{step.key}" for role, step in uses.items()},
        "params": params or {},
    }
    return Step(
        kind,
        Digest.of(canonical_json(identity)).hex,
        title,
        repository,
        model=model,
        target=target,
        builder=builder.name if builder else None,
        params=params or {},
        files=files,
        uses={role: step.key for role, step in uses.items()},
    )
