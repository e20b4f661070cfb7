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
    COMPILE = "compile"
    EVALUATE = "evaluate"
    PACKAGE = "package"
    INDEX = "index"
    IMAGE = "image"
    ATTEST = "attest"
    SIGN = "sign"
    RELEASE = "release"


REVISION: dict[StepKind, int] = dict.fromkeys(StepKind, 1) | {
    StepKind.IMPORT: 2,
    StepKind.OPTIMIZE: 2,
    StepKind.COMPILE: 2,
    StepKind.EVALUATE: 2,
    StepKind.PACKAGE: 2,
    StepKind.INDEX: 2,
    StepKind.ATTEST: 2,
}
"""Part of every key of a kind: edgectl's own code, where the rest of a key is what it works on.

Raise the number of a kind whenever the same inputs would now give another result:

- import, optimize, compile, evaluate: `edgectl.engine`, which evaluates inside a builder's
  environment, `edgectl.build.protocol` or `edgectl.build.kit`. A builder's own code is in its
  digest.
- package: `edgectl.build.modelpack`, `edgectl.build.card`, the signature's JSON, or which gates and
  limits a variant is held against.
- index, image: `edgectl.build.modelpack`, `edgectl.oci.image`, `edgectl.oci.tar`.
- attest, sign: what `edgectl.build.attestations` says, the format of signatures or of records.

A step's key goes into the keys of the steps that use it, so raising one rebuilds those after it.
`tests/unit/apply/test_golden.py` fails when results change and this does not.
"""


@dataclass(frozen=True, slots=True)
class Step:
    """One piece of work. Same key, same result: the result is cached under `cache-<key>`."""

    kind: StepKind
    key: str
    """sha256, in hex, of the canonical JSON of kind, repository, builder, inputs and params."""
    title: str
    """For people; not part of the key."""
    repository: str
    """Where the result is cached and published, below the registry location."""
    model: ModelKey | None = None
    target: str | None = None
    builder: DesiredBuilder | None = None
    """The toolchain that runs it; None for what edgectl does itself."""
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
        # Results live in their repository: two models made from one file share no step.
        "repository": repository,
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
        builder=builder,
        params=params or {},
        files=files,
        uses={role: step.key for role, step in uses.items()},
    )
