"""Evaluation reports: what was measured where, and what of it may be said of a target.

The raw report is `edgectl.engine.evaluate`'s: `metrics`, `samples`, `sizeBytes`, `host` and, where
there is golden data, `golden` with its `problems`, and, where measured, `measured` with `latency`,
`loadSeconds` and `peakMemoryBytes`. A model that cannot run on the build machine has no metrics and
`deferred`, a sentence that says why; what TensorFlow Lite Micro needs is `arenaBytes`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgectl.errors import ToolchainError

if TYPE_CHECKING:
    from collections.abc import Mapping

LEFT_TO_DEVICE: Mapping[str, str] = {"left": "device warm-up"}
"""Stands where a measurement would, if it had been made on the target's architecture."""


def report_for(
    raw: Mapping[str, Any], *, target: str, architecture: str, precision: str
) -> dict[str, Any]:
    """The report of one variant: the only place where a host's figures become a target's.

    Metrics, size and the answers to golden data are properties of the model. Latency, load time and
    peak memory are properties of the model on a machine: they are kept only if they were measured
    on the target's architecture (OCI's name), together with the machine; otherwise the device's
    warm-up measures them.
    """
    host = raw["host"]
    report: dict[str, Any] = {
        "schemaVersion": 1,
        "target": target,
        "architecture": architecture,
        "precision": precision,
        "metrics": dict(raw["metrics"]),
        "samples": raw["samples"],
        "sizeBytes": raw["sizeBytes"],
        "engine": host["engine"],
        "providers": list(host["providers"]),
    }
    for fact in ("deferred", "arenaBytes"):
        if fact in raw:
            report[fact] = raw[fact]
    if "golden" in raw:
        report["golden"] = {"problems": list(raw["golden"]["problems"])}
    measured = raw.get("measured")
    if measured is None or host["architecture"] != architecture:
        report["latency"] = dict(LEFT_TO_DEVICE)
        return report
    return report | {
        "latency": dict(measured["latency"]),
        "loadSeconds": measured["loadSeconds"],
        "peakMemoryBytes": measured["peakMemoryBytes"],
        **{fact: measured[fact] for fact in ("throughput", "energy") if fact in measured},
        "measuredOn": {"architecture": host["architecture"], "cpu": host["cpu"]},
    }


def require_complete(raw: Mapping[str, Any], builder: str) -> None:
    """Check what a builder measured before anything depends on it; raises ToolchainError."""
    try:
        report = report_for(raw, target="", architecture=raw["host"]["architecture"], precision="")
        numbers = [report["sizeBytes"], *report["metrics"].values()]
        if "measured" in raw:
            numbers += [report["latency"]["p50"], report["latency"]["p99"]]
            numbers.append(report["peakMemoryBytes"])
        if not all(isinstance(number, int | float) for number in numbers):
            raise TypeError("not a number")
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ToolchainError(
            f"builder {builder!r} made a malformed evaluation: {error!r}",
            hint="let it return what edgectl.engine.evaluate does; see docs/builders.md",
        ) from error
