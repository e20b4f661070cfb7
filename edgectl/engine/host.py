"""What machine this is, in the names that images and manifests use."""

from __future__ import annotations

import platform
import re
from pathlib import Path

_OCI_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "i686": "386"}


def host_architecture() -> str:
    """OCI's name (GOARCH) of this machine's instruction set."""
    machine = platform.machine()
    return _OCI_ARCHITECTURES.get(machine, machine)


def describe_host() -> dict[str, str]:
    """The machine for a report of what was measured: `architecture` and `cpu`, its model name."""
    return {"architecture": host_architecture(), "cpu": _cpu_name()}


def _cpu_name() -> str:
    for path, pattern in (
        ("/proc/cpuinfo", r"^model name\s*:\s*(.+)$"),
        ("/proc/device-tree/model", r"^([^\0]+)"),
    ):
        try:
            text = Path(path).read_text(encoding="utf-8", errors="replace")
        except OSError:
            continue
        if found := re.search(pattern, text, re.MULTILINE):
            return found[1].strip()
    return platform.processor() or "unknown"
