"""What machine this is, in the names that images and manifests use."""

from __future__ import annotations

import platform

_OCI_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "i686": "386"}


def host_architecture() -> str:
    """OCI's name (GOARCH) of this machine's instruction set."""
    machine = platform.machine()
    return _OCI_ARCHITECTURES.get(machine, machine)
