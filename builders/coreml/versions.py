"""Versions of Core ML: what a specification of each may hold, and on which systems it runs."""

from __future__ import annotations

import re
from dataclasses import dataclass

import coremltools

from edgectl.build.protocol import RefusalError


@dataclass(frozen=True, slots=True)
class CoreMl:
    """A version of Core ML, as the system that brought it has it."""

    major: int
    system: str
    specification: int
    """The newest `specificationVersion` that it reads."""

    @property
    def target(self) -> coremltools.target:
        """The deployment target of this system."""
        return coremltools.target(self.specification)


# coremltools/__init__.py, _MLPROGRAM_SPECIFICATION names. Core ML 5 is the first with ML programs.
VERSIONS = (
    CoreMl(5, "iOS 15, macOS 12", 6),
    CoreMl(6, "iOS 16, macOS 13", 7),
    CoreMl(7, "iOS 17, macOS 14", 8),
    CoreMl(8, "iOS 18, macOS 15", 9),
    CoreMl(9, "iOS 26, macOS 26", 10),
)

_CLAUSE = re.compile(r"(>=|==|~=|>|<=|<|!=)?\s*(\d+)(?:\.\d+)*")


def oldest(requirement: str) -> CoreMl:
    """The oldest Core ML that an engine version of a Target admits, such as `>=7.0`.

    A model may use what this version reads, and no more: a device may have no newer one. Refuses a
    requirement of a Core ML that is not known (`engine-version`).
    """
    lowest = VERSIONS[0].major
    for clause in requirement.split(","):
        match = _CLAUSE.fullmatch(clause.strip())
        if match and match[1] not in {"<=", "<", "!="}:
            lowest = max(lowest, int(match[2]))
    for version in VERSIONS:
        if version.major == lowest:
            return version
    known = ", ".join(f"{version.major} ({version.system})" for version in VERSIONS)
    raise RefusalError(
        "engine-version",
        f"the Target's engine version {requirement!r} is of no Core ML that this toolchain "
        f"(coremltools {coremltools.__version__}) knows",
        hint=f"set spec.engine.version of the Target to one of: {known}",
    )


def named(specification: int) -> str:
    """A specification version in the words of a refusal."""
    for version in VERSIONS:
        if version.specification == specification:
            return f"Core ML {version.major} ({version.system})"
    return f"specification version {specification}"
