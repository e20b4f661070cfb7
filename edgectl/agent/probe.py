"""What inference engines this device has, found out in processes of their own.

Importing an engine costs tens of megabytes, which the agent would then hold for ever:
`python -m edgectl.agent.probe ENGINE` imports one, prints one JSON object and is gone. One that
crashes takes no other with it.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import json
import signal
import subprocess
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from edgectl.agent.child import STOPPING

if TYPE_CHECKING:
    from collections.abc import Mapping

TIMEOUT = 120.0
"""Seconds for one engine; a cold import from an SD card takes ten."""

PACKAGES = {
    "onnxruntime": "onnxruntime",
    "openvino": "openvino",
    "tensorrt": "tensorrt",
    "litert": "ai_edge_litert",
    "tflm": "tflite_micro",
    "coreml": "coremltools",
}
"""Engine to the package that is imported for it."""
_FROM_OUTSIDE = STOPPING | {signal.SIGKILL}
"""Signals that no engine brings upon itself: somebody asks for an end, or memory is short."""


class _UnansweredError(Exception):
    """The process was kept from answering, which says nothing about the engine."""


@dataclass(frozen=True, slots=True)
class Engines:
    """The engines of a device; empty if there is none, or none starts."""

    versions: Mapping[str, str] = field(default_factory=dict)
    providers: tuple[str, ...] = ()
    """ONNX Runtime's execution providers."""
    compute_capability: str = ""
    """Of the GPU that TensorRT works on, such as `8.7`; empty without one."""
    key: str = ""
    """Names the installation that was probed; another one is probed anew."""

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """Read what `to_json` made, now or in an earlier version of the agent."""
        return cls(
            dict(value["versions"]),
            tuple(value["providers"]),
            str(value.get("compute_capability", "")),
            str(value["key"]),
        )

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        return asdict(self)


def installation() -> str:
    """Names the installed engines without importing them; empty if there is none."""
    found = [text for package in PACKAGES.values() if (text := _installed(package))]
    return " ".join([sys.executable, *found]) if found else ""


def _installed(package: str) -> str:
    """Where a package is and since when; empty if it is not."""
    found = importlib.util.find_spec(package)
    if found is None or found.origin is None:
        return ""
    try:
        return f"{found.origin} {Path(found.origin).stat().st_mtime_ns}"
    except OSError:
        return ""  # it is being installed or removed at this very moment


def probe(timeout: float = TIMEOUT) -> Engines:
    """Import each installed engine in a sub-process and ask it.

    An engine that does not start, or crashes as it does, is as good as none: selection then says
    that it is missing. If one took too long, or its process was not let finish or even begin,
    nothing is remembered, and the next poll asks again.
    """
    key = installation()
    versions: dict[str, str] = {}
    providers: tuple[str, ...] = ()
    capability = ""
    for engine, package in PACKAGES.items():
        if not _installed(package):
            continue
        try:
            answer = _ask(engine, timeout)
        except _UnansweredError:
            key = ""
            continue
        if answer is not None:
            versions[engine] = str(answer["version"])
            providers += tuple(answer.get("providers", ()))
            capability = str(answer.get("computeCapability", capability))
    return Engines(versions, providers, capability, key)


def _ask(engine: str, timeout: float) -> dict[str, Any] | None:
    """What an engine says of itself; None if it does not start. Raises _UnansweredError."""
    try:
        answer = subprocess.run(
            [sys.executable, "-P", "-m", "edgectl.agent.probe", engine],
            capture_output=True, timeout=timeout, check=False, stdin=subprocess.DEVNULL,
        )  # fmt: skip
    except (subprocess.TimeoutExpired, OSError) as error:
        raise _UnansweredError from error
    if -answer.returncode in _FROM_OUTSIDE:
        raise _UnansweredError
    if answer.returncode:
        return None
    try:
        value = json.loads(answer.stdout.splitlines()[-1])
    except (ValueError, LookupError, RecursionError):
        return None
    return value if isinstance(value, dict) and "version" in value else None


def describe(engine: str) -> dict[str, Any]:
    """Import an engine: its `version`, and what else decides which models run on it.

    Raises whatever keeps it from starting.
    """
    package = PACKAGES[engine]
    module = importlib.import_module(package)
    version = getattr(module, "__version__", None)
    if version is None:
        version = importlib.metadata.version(package.replace("_", "-"))
    # OpenVINO appends its build and branch.
    answer: dict[str, Any] = {"version": str(version).partition("-")[0]}
    if engine == "onnxruntime":
        answer["providers"] = list(module.get_available_providers())
    if engine == "tensorrt":
        from edgectl.engine.cuda import Gpu

        gpu = Gpu()  # TensorRT without a GPU imports, and runs nothing
        answer["computeCapability"] = gpu.compute_capability
        gpu.close()
    return answer


def main() -> None:
    """Print what the engine that the command line names says of itself."""
    sys.stdout.write(json.dumps(describe(sys.argv[1])) + "\n")


if __name__ == "__main__":
    main()
