"""Opsets: converting between them, and which ones a release of ONNX Runtime reads."""

from __future__ import annotations

import re
from dataclasses import dataclass

import onnx
import onnx.version_converter

from edgectl.build.kit.onnxfile import opset_of
from edgectl.build.kit.wording import first_line
from edgectl.build.protocol import RefusalError


@dataclass(frozen=True, slots=True)
class Reads:
    """The newest versions that a release of ONNX Runtime reads."""

    opset: int
    ir: int


# ONNX Runtime's docs/Versioning.md (https://onnxruntime.ai/docs/reference/compatibility.html): the
# ONNX release that each was built with, and onnx.helper.VERSION_TABLE for what that one has. Later
# releases read all of this and more.
RELEASES = {
    (1, 8): Reads(14, 7),
    (1, 9): Reads(15, 7),
    (1, 10): Reads(15, 8),
    (1, 12): Reads(17, 8),
    (1, 14): Reads(18, 8),
    (1, 15): Reads(19, 9),
    (1, 17): Reads(20, 9),
    (1, 18): Reads(21, 10),
    (1, 21): Reads(22, 10),
    (1, 23): Reads(23, 11),
}
_CLAUSE = re.compile(r"(>=|==|~=|>|<=|<|!=)?\s*(\d+)(?:\.(\d+))?(?:\.\d+)*")
_NO_ADAPTER = re.compile(r"(?:for|Version of) (\w+)")


def oldest_release(requirement: str) -> tuple[int, int]:
    """The oldest ONNX Runtime, as (major, minor), that an engine version such as `>=1.20` admits.

    Refuses one that is older than any in RELEASES (`engine-version`).
    """
    lowest = (0, 0)
    for clause in requirement.split(","):
        match = _CLAUSE.fullmatch(clause.strip())
        if match and match[1] not in {"<=", "<", "!="}:
            lowest = max(lowest, (int(match[2]), int(match[3] or 0)))
    first = min(RELEASES)
    if lowest < first:
        raise RefusalError(
            "engine-version",
            f"the Target's engine version {requirement!r} admits ONNX Runtime before "
            f"{first[0]}.{first[1]}, which this toolchain makes no models for",
            hint=f"set spec.engine.version of the Target to '>={first[0]}.{first[1]}' or newer",
        )
    return lowest


def readable(release: tuple[int, int]) -> Reads:
    """What a release reads."""
    return RELEASES[max(known for known in RELEASES if known <= release)]


def fit(model: onnx.ModelProto, requirement: str) -> onnx.ModelProto:
    """The model in an opset that the oldest ONNX Runtime of the target reads.

    A newer one is converted down where ONNX knows how. Refuses the rest (`engine-version`), with
    the node that has no older form.
    """
    release = oldest_release(requirement)
    reads = readable(release)
    if opset_of(model) > reads.opset:
        try:
            model = convert_opset(model, reads.opset)
        except RefusalError as refusal:
            raise _too_new(refusal.message, release, refusal.node) from refusal
    needs = onnx.helper.find_min_ir_version_for(model.opset_import, ignore_unknown=True)
    if needs > reads.ir:
        raise _too_new(f"the model needs ONNX IR {needs}", release, None)
    model.ir_version = min(model.ir_version, max(needs, reads.ir))
    return model


def convert_opset(model: onnx.ModelProto, opset: int) -> onnx.ModelProto:
    """The same model in another opset; refuses one with a node that cannot be said there."""
    try:
        return onnx.version_converter.convert_version(model, opset)
    except Exception as error:
        why = first_line(error).rpartition("failed: ")[2]  # after the place in ONNX's source
        named = _NO_ADAPTER.search(why)
        kind = named[1] if named else ""
        nodes = [node for node in model.graph.node if node.op_type == kind]
        raise RefusalError(
            "opset-conversion",
            f"opset {opset_of(model)} cannot be converted to {opset}: {why}",
            node=(nodes[0].name or kind) if nodes else kind or None,
            hint=f"export the model again with opset {opset}",
        ) from error


def _too_new(why: str, release: tuple[int, int], node: str | None) -> RefusalError:
    reads = readable(release)
    return RefusalError(
        "engine-version",
        f"{why}; ONNX Runtime {release[0]}.{release[1]}, the oldest that the Target admits, reads "
        f"up to opset {reads.opset} and IR {reads.ir}",
        node=node,
        hint=f"export the model with opset {reads.opset}, or raise spec.engine.version of the "
        "Target",
    )
