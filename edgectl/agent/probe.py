"""What inference engines this device has, found out in a process of its own.

Importing an engine costs tens of megabytes, which the agent would then hold for ever:
`python -m edgectl.agent.probe` imports it, prints one JSON object and is gone.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Mapping

TIMEOUT = 120.0
"""Seconds; a cold import from an SD card takes ten."""


@dataclass(frozen=True, slots=True)
class Engines:
    """The engines of a device; empty if there is none, or it does not start."""

    versions: Mapping[str, str] = field(default_factory=dict)
    providers: tuple[str, ...] = ()
    key: str = ""
    """Names the installation that was probed; another one is probed anew."""

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """Read what `to_json` made."""
        return cls(dict(value["versions"]), tuple(value["providers"]), str(value["key"]))

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        return asdict(self)


def installation() -> str:
    """Names the installed ONNX Runtime without importing it; empty if there is none."""
    found = importlib.util.find_spec("onnxruntime")
    if found is None or found.origin is None:
        return ""
    try:
        return f"{sys.executable} {found.origin} {Path(found.origin).stat().st_mtime_ns}"
    except OSError:
        return ""  # it is being installed or removed at this very moment


def probe(timeout: float = TIMEOUT) -> Engines:
    """Import the engines in a sub-process and ask them.

    An engine that does not start is as good as none: selection then says that it is missing.
    """
    key = installation()
    if not key:
        return Engines()
    try:
        answer = subprocess.run(
            [sys.executable, "-P", "-m", "edgectl.agent.probe"],
            capture_output=True, timeout=timeout, check=True, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        value = json.loads(answer.stdout.splitlines()[-1])
        return Engines(dict(value["versions"]), tuple(value["providers"]), key)
    except (subprocess.SubprocessError, OSError, ValueError, LookupError, TypeError):
        return Engines(key="")


def main() -> None:
    """Print the engines that can be imported here."""
    import onnxruntime

    answer = {
        "versions": {"onnxruntime": onnxruntime.__version__},
        "providers": list(onnxruntime.get_available_providers()),
    }
    sys.stdout.write(json.dumps(answer) + "\n")


if __name__ == "__main__":
    main()
