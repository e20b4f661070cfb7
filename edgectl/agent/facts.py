"""What this device is: measured, or taken from a hardware profile where that is said explicitly."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgectl.agent.probe import Engines, probe
from edgectl.digest import Digest, canonical_json

if TYPE_CHECKING:
    from collections.abc import Mapping

GENERIC_FAMILY = "server"

_ARCHITECTURES = {
    "x86_64": ("amd64", None),
    "aarch64": ("arm64", "v8"),
    "armv7l": ("arm", "v7"),
    "armv6l": ("arm", "v6"),
    "riscv64": ("riscv64", None),
}
_BOARDS = (
    (re.compile(r"Raspberry Pi (?:Compute Module )?(\d)"), "raspberry-pi", "raspberry-pi-{}"),
    (re.compile(r"Jetson AGX Orin"), "jetson", "jetson-agx-orin"),
    (re.compile(r"Orin (Nano|NX)"), "jetson", "jetson-orin-{}"),
    (re.compile(r"Jetson|NVIDIA Orin"), "jetson", None),
    (re.compile(r"\bNUC"), "intel-nuc", "intel-nuc"),
)
"""The board's own name (device tree or DMI), its family, and the profile that it is."""
_SYNONYMS = {"asimd": "neon", "asimddp": "dotprod", "asimdhp": "fp16"}
"""Kernel's name of an Arm CPU feature to the name that people use; profiles may use either."""
_DEVICES = (
    ("dev/nvidia0", "gpu"),
    ("dev/nvhost-gpu", "gpu"),
    ("dev/dri/renderD128", "gpu"),
    ("dev/accel/accel0", "npu"),
    ("dev/hailo0", "npu"),
    ("dev/apex_0", "npu"),
)


@dataclass(frozen=True, slots=True)
class Facts:
    """What decides which variant of a model a device gets."""

    os: str
    architecture: str
    family: str
    variant: str | None = None
    target: str | None = None
    """The hardware profile that this device is, if it is known to be one."""
    cpu_features: frozenset[str] = frozenset()
    cores: int = 1
    memory: int = 0
    """Bytes of RAM in all."""
    storage: int = 0
    """Bytes of the file system that holds the agent's state, in all; whether enough of it is free
    is checked before each download, since that passes."""
    accelerators: frozenset[str] = frozenset()
    engines: Mapping[str, str] = field(default_factory=dict)
    """Engine to its version."""
    providers: frozenset[str] = frozenset()
    compute_capability: str = ""
    """CUDA's, of the GPU, such as `8.7`; empty without one that an engine works on."""
    simulated: bool = False
    """Taken from a profile: nothing measured here says anything about such a device."""

    @property
    def fingerprint(self) -> str:
        """Changes when the device may get another variant than before."""
        return Digest.of(canonical_json(self.to_json())).hex

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        return {
            "os": self.os,
            "architecture": self.architecture,
            "variant": self.variant,
            "family": self.family,
            "target": self.target,
            "cpuFeatures": sorted(self.cpu_features),
            "cores": self.cores,
            "memory": self.memory,
            "storage": self.storage,
            "accelerators": sorted(self.accelerators),
            "engines": dict(self.engines),
            "providers": sorted(self.providers),
            "computeCapability": self.compute_capability,
            "simulated": self.simulated,
        }


def measure(
    state: Path,
    *,
    target: str | None = None,
    engines: Engines | None = None,
    root: Path = Path("/"),
) -> Facts:
    """Measure this device; `state` is where the agent keeps its data.

    `target` is the profile that the owner says this hardware is; `engines` spares the probe.
    """
    engines = engines or probe()
    name = os.uname()
    architecture, variant = _ARCHITECTURES.get(name.machine, (name.machine, None))
    family, detected = identify(board_name(root))
    if target is not None:
        from edgectl.agent.profile import family_of

        family = family_of(target) or family
    return Facts(
        os=name.sysname.lower(),
        architecture=architecture,
        variant=variant,
        family=family,
        target=target or detected,
        cpu_features=cpu_features(_read(root / "proc/cpuinfo")),
        cores=os.cpu_count() or 1,
        memory=memory_bytes(_read(root / "proc/meminfo")),
        storage=total_bytes(state),
        accelerators=frozenset(kind for device, kind in _DEVICES if (root / device).exists()),
        engines=engines.versions,
        providers=frozenset(engines.providers),
        compute_capability=engines.compute_capability,
    )


def board_name(root: Path = Path("/")) -> str:
    """The board's own name: device tree on Arm, DMI on x86; empty if it has none."""
    for path in ("proc/device-tree/model", "sys/class/dmi/id/product_name"):
        if name := _read(root / path).rstrip("\0\n "):
            return name
    return ""


def identify(board: str) -> tuple[str, str | None]:
    """Family and profile of a board by its name; the generic family if it is nothing we know."""
    for pattern, family, target in _BOARDS:
        if found := pattern.search(board):
            named = target.format(*found.groups()).lower() if target else None
            return family, named
    return GENERIC_FAMILY, None


def cpu_features(cpuinfo: str) -> frozenset[str]:
    """The `flags` (x86) or `Features` (Arm) of /proc/cpuinfo's first CPU, with synonyms."""
    found = re.search(r"^(?:flags|Features)\s*:\s*(.*)$", cpuinfo, re.MULTILINE)
    features = set(found[1].split()) if found else set()
    return frozenset(features | {_SYNONYMS[name] for name in features if name in _SYNONYMS})


def memory_bytes(meminfo: str) -> int:
    """`MemTotal` of /proc/meminfo in bytes; 0 if it does not say."""
    found = re.search(r"^MemTotal:\s*(\d+) kB$", meminfo, re.MULTILINE)
    return int(found[1]) * 1024 if found else 0


def free_bytes(path: Path) -> int:
    """Bytes that an unprivileged process can still write where `path` is or will be."""
    status = os.statvfs(_existing(path))
    return status.f_bavail * status.f_frsize


def total_bytes(path: Path) -> int:
    """Size of the file system where `path` is or will be."""
    status = os.statvfs(_existing(path))
    return status.f_blocks * status.f_frsize


def _existing(path: Path) -> Path:
    return next(place for place in (path, *path.absolute().parents) if place.exists())


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""  # the kernel of another board does not have this file
