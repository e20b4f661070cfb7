"""Which variant of a model a device gets, and why not each of the others. Pure.

A variant made for this very profile is preferred to one for another board of the same family, and
that to a generic one for the architecture. A variant for another family is never taken, even if
it would start: it was measured and tuned for hardware that is not this.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from edgectl.agent.facts import GENERIC_FAMILY
from edgectl.quantity import format_bytes

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from edgectl.agent.facts import Facts
    from edgectl.oci.descriptor import Descriptor

CPU_PROVIDER = "CPUExecutionProvider"
_ANNOTATION = "dev.edgectl."
_CLAUSE = re.compile(r"\s*(>=|<=|==|!=|~=|>|<|)\s*(\d+(?:\.\d+)*)[^,]*")


@dataclass(frozen=True, slots=True)
class Variant:
    """One manifest of a model's index, with what its annotations say."""

    descriptor: Descriptor
    target: str
    engine: str
    engine_version: str
    """What the engine's version has to be, such as `>=1.20`; empty for any."""
    precision: str
    requires: Mapping[str, Any] = field(default_factory=dict)
    """`family`, `accelerators`, `computeCapability`, `cpuFeatures`, `providers`, `latency` (s),
    `peakMemory` and `size` (bytes), as far as given."""


@dataclass(frozen=True, slots=True)
class Rejection:
    """A variant that the device does not get."""

    target: str
    reason: str


@dataclass(frozen=True, slots=True)
class Choice:
    """The outcome of a selection."""

    chosen: Variant | None
    """None if no variant runs on the device."""
    rejected: tuple[Rejection, ...]

    @property
    def descriptor(self) -> Descriptor | None:
        """The manifest to get."""
        return None if self.chosen is None else self.chosen.descriptor


def select(descriptors: Iterable[Descriptor], facts: Facts) -> Choice:
    """Choose among the manifests of a model's index.

    Those without a target are no variants: they describe the model to tools that know only images.
    """
    rejected: list[Rejection] = []
    fitting: list[Variant] = []
    for descriptor in descriptors:
        target = descriptor.annotations.get(f"{_ANNOTATION}target")
        if target is None:
            continue
        try:
            variant = _variant(descriptor, target)
            reason = "; ".join(_objections(variant, facts))
        except (ValueError, TypeError, AttributeError, RecursionError) as error:
            reason = f"its annotations are malformed: {error}"
        if reason:
            rejected.append(Rejection(target, reason))
        else:
            fitting.append(variant)
    if not fitting:
        return Choice(None, tuple(rejected))
    best, *others = sorted(fitting, key=lambda variant: _rank(variant, facts))
    rejected += [Rejection(other.target, f"would run, but {_why(best, facts)}") for other in others]
    return Choice(best, tuple(rejected))


def _variant(descriptor: Descriptor, target: str) -> Variant:
    said = descriptor.annotations
    requires = json.loads(said.get(f"{_ANNOTATION}requires", "{}"))
    if not isinstance(requires, dict):
        raise TypeError(f"{_ANNOTATION}requires is not an object")
    return Variant(
        descriptor,
        target,
        said.get(f"{_ANNOTATION}engine", "onnxruntime"),
        said.get(f"{_ANNOTATION}engine-version", ""),
        said.get(f"{_ANNOTATION}precision", ""),
        requires,
    )


def _rank(variant: Variant, facts: Facts) -> tuple[Any, ...]:
    """Lower is better; more specific demands first among equals, then the name, for determinism."""
    family = variant.requires.get("family", GENERIC_FAMILY)
    demands = sum(len(variant.requires.get(key, ())) for key in ("accelerators", "cpuFeatures"))
    return (variant.target != facts.target, family != facts.family, -demands, variant.target)


def _why(best: Variant, facts: Facts) -> str:
    if best.target == facts.target:
        return f"{best.target} is exactly this device"
    if best.requires.get("family") == facts.family:
        return f"{best.target} is closer to this device"
    return f"{best.target} comes first"


def _objections(variant: Variant, facts: Facts) -> Iterator[str]:
    """Everything that keeps a variant from running on a device, in words."""
    yield from _platform_objections(variant, facts)
    yield from _engine_objections(variant, facts)
    yield from _gpu_objections(variant.requires, facts)
    yield from _resource_objections(variant.requires, facts)


def _platform_objections(variant: Variant, facts: Facts) -> Iterator[str]:
    platform = variant.descriptor.platform
    if platform is not None:
        if (platform.os, platform.architecture) != (facts.os, facts.architecture):
            yield (
                f"it is for {platform.os}/{platform.architecture}, "
                f"this device is {facts.os}/{facts.architecture}"
            )
        elif platform.architecture == "arm" and (platform.variant or "") > (facts.variant or ""):
            yield f"it is for arm/{platform.variant}, this device is arm/{facts.variant}"
    family = variant.requires.get("family", GENERIC_FAMILY)
    if family not in {facts.family, GENERIC_FAMILY} and variant.target != facts.target:
        yield f"it is made for the family {family}, this device is {_article(facts.family)}"


def _engine_objections(variant: Variant, facts: Facts) -> Iterator[str]:
    version = facts.engines.get(variant.engine)
    if version is None:
        yield f"it needs the engine {variant.engine}, which this device does not have"
    elif not version_satisfies(version, variant.engine_version):
        yield f"it needs {variant.engine} {variant.engine_version}, this device has {version}"
    else:
        wanted = [name for name in variant.requires.get("providers", ()) if name != CPU_PROVIDER]
        # Several are alternatives in order of preference; without any, it would crawl on the CPU.
        if wanted and facts.providers.isdisjoint(wanted):
            have = ", ".join(sorted(facts.providers)) or "none"
            yield f"it needs {' or '.join(wanted)}, this device's engine has {have}"


def _gpu_objections(requires: Mapping[str, Any], facts: Facts) -> Iterator[str]:
    """An engine that was built for one sort of GPU runs on no other."""
    wanted = requires.get("computeCapability")
    if wanted and wanted != facts.compute_capability:
        have = facts.compute_capability or "none"
        yield f"it needs a GPU of compute capability {wanted}, this device has {have}"


def _resource_objections(requires: Mapping[str, Any], facts: Facts) -> Iterator[str]:
    for kind in requires.get("accelerators", ()):
        if kind not in facts.accelerators:
            yield f"it needs an accelerator ({kind}), which this device does not have"
    missing = [name for name in requires.get("cpuFeatures", ()) if name not in facts.cpu_features]
    if missing:
        yield f"it needs the CPU feature{'s' * (len(missing) > 1)} {', '.join(missing)}"
    memory = max(requires.get("memory", 0), requires.get("peakMemory", 0))
    if memory > facts.memory:
        yield (
            f"it needs {format_bytes(memory)} of memory, "
            f"this device has {format_bytes(facts.memory)}"
        )
    storage = max(requires.get("storage", 0), requires.get("size", 0))
    if storage > facts.storage:
        yield (
            f"it needs {format_bytes(storage)} of storage, "
            f"this device has {format_bytes(facts.storage)}"
        )


def version_satisfies(version: str, requirement: str) -> bool:
    """Whether a version is in `>=1.20,<2` (PEP 440); a bare version means at least that.

    Compares numbers only (`1.31.1`); raises ValueError on a requirement of another form.
    """
    have = _numbers(version)
    for clause in filter(None, (part.strip() for part in requirement.split(","))):
        match = _CLAUSE.fullmatch(clause)
        if match is None:
            raise ValueError(f"{requirement!r} is not a version requirement such as >=1.20")
        operator, wanted = match[1] or ">=", _numbers(match[2])
        width = max(len(have), len(wanted))
        left, right = (_padded(numbers, width) for numbers in (have, wanted))
        holds = {
            ">=": left >= right, "<=": left <= right, ">": left > right, "<": left < right,
            "==": left == right, "!=": left != right,
            "~=": left >= right and left[: len(wanted) - 1] == wanted[:-1],
        }  # fmt: skip
        if not holds[operator]:
            return False
    return True


def _numbers(version: str) -> tuple[int, ...]:
    match = re.match(r"\d+(?:\.\d+)*", version)
    return tuple(int(part) for part in match[0].split(".")) if match else ()


def _padded(numbers: tuple[int, ...], width: int) -> tuple[int, ...]:
    return numbers + (0,) * (width - len(numbers))


def _article(family: str) -> str:
    return f"{'an' if family[:1] in 'aeiou' else 'a'} {family}"
