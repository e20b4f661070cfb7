"""Gates: whether a variant is good enough to be released. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgectl.errors import GateError
from edgectl.quantity import format_bytes, format_seconds

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


@dataclass(frozen=True, slots=True)
class Violation:
    """One thing that was measured and is outside what is allowed."""

    what: str
    measured: str
    allowed: str

    def __str__(self) -> str:
        return f"{self.what} is {self.measured}, allowed is {self.allowed}"


@dataclass(frozen=True, slots=True)
class GoldenProblem:
    """One way in which a variant's answers to the golden data are not the expected ones.

    A device would find it at its warm-up and keep the model that it has.
    """

    problem: str

    def __str__(self) -> str:
        return f"golden data: {self.problem}"


Refusal = Violation | GoldenProblem
"""Why a variant is not released; `str()` says it in one sentence."""


def violations(
    report: Mapping[str, Any],
    *,
    gates: Mapping[str, Mapping[str, float]],
    limits: Mapping[str, float],
    baseline: Mapping[str, float] | None = None,
) -> tuple[Refusal, ...]:
    """Everything that stops a variant from being released; empty if nothing does.

    `report` is `edgectl.build.evaluation.report_for`'s, so it says a latency only where it was
    measured on the target's architecture; what it leaves to the device is not judged here.
    A model that cannot run on the build machine (`deferred`) is left to the device's golden data
    and soak. `gates` is metric to `min`, `max`, `maxDrop` and `maxRise`, the last two against
    `baseline`, the metrics of the model as it came. `limits` are the target's: `latency` in seconds
    (held against p99), `power` in watts, `peakMemory`, `modelSize` and `arena` in bytes.
    """
    found: list[Refusal] = []
    for metric, gate in sorted(gates.items()):
        if "deferred" not in report:
            found += _metric(metric, gate, report["metrics"].get(metric), baseline)
    found += oversize(report["sizeBytes"], limits)
    found += _measured(report, limits)
    found += [GoldenProblem(problem) for problem in report.get("golden", {}).get("problems", ())]
    return tuple(found)


def _metric(
    metric: str,
    gate: Mapping[str, float],
    measured: float | None,
    baseline: Mapping[str, float] | None,
) -> Iterator[Violation]:
    if measured is None:
        yield Violation(metric, "not measured", "a metric of the task")
        return
    least, greatest = gate.get("min"), gate.get("max")
    if least is not None and not measured >= least:
        yield Violation(metric, f"{measured:.4f}", f"at least {least:.4f}")
    if greatest is not None and not measured <= greatest:
        yield Violation(metric, f"{measured:.4f}", f"at most {greatest:.4f}")
    before = None if baseline is None else baseline.get(metric)
    for bound, word, sign in (("maxDrop", "drop", -1), ("maxRise", "rise", 1)):
        if bound in gate:
            yield from _change(f"{word} of {metric}", before, measured, sign, gate[bound])


def _change(
    what: str, before: float | None, measured: float, sign: int, most: float
) -> Iterator[Violation]:
    """A metric that moved too far in the direction of `sign`."""
    if before is None:
        yield Violation(what, "not measured", f"at most {most:.4f}")
        return
    change = sign * (measured - before)
    # Shares of a few hundred samples: a difference of one rounding error is none.
    if not change <= most + 1e-9:
        yield Violation(
            what, f"{change:.4f} (from {before:.4f} to {measured:.4f})", f"at most {most:.4f}"
        )


def oversize(size: int, limits: Mapping[str, float]) -> tuple[Violation, ...]:
    """The violation of a model file of `size` bytes: a limit that holds without an evaluation."""
    allowed = limits.get("modelSize")
    if allowed is None or size <= allowed:
        return ()
    return (Violation("model size", format_bytes(size), f"at most {format_bytes(allowed)}"),)


def overfull(size: int, limits: Mapping[str, float]) -> tuple[Violation, ...]:
    """The violation of a variant whose files are `size` bytes together."""
    allowed = limits.get("storage")
    if allowed is None or size <= allowed:
        return ()
    return (Violation("storage", format_bytes(size), f"at most {format_bytes(allowed)}"),)


def _measured(report: Mapping[str, Any], limits: Mapping[str, float]) -> Iterator[Violation]:
    arena, allowed = report.get("arenaBytes"), limits.get("arena")
    if arena is not None and allowed is not None and arena > allowed:
        yield Violation("tensor arena", format_bytes(arena), f"at most {format_bytes(allowed)}")
    p99, allowed = report["latency"].get("p99"), limits.get("latency")
    if p99 is not None and allowed is not None and p99 > allowed:
        yield Violation("p99 latency", format_seconds(p99), f"at most {format_seconds(allowed)}")
    power, allowed = _power(report), limits.get("power")
    if power is not None and allowed is not None and power > allowed:
        yield Violation("power", f"{power:.1f} W", f"at most {allowed:g} W")
    peak, allowed = report.get("peakMemoryBytes"), limits.get("peakMemory")
    if peak is not None and allowed is not None and peak > allowed:
        yield Violation("peak memory", format_bytes(peak), f"at most {format_bytes(allowed)}")


def _power(report: Mapping[str, Any]) -> float | None:
    """Watts under inference, where energy was measured; an estimate is no measurement."""
    energy = report.get("energy")
    if energy is None or energy["source"] == "estimate":
        return None
    return float(energy["joules"] / report["latency"]["p50"])


def require(variant: str, found: tuple[Refusal, ...]) -> None:
    """Raise GateError with every violation of a variant; nothing if there is none."""
    if not found:
        return
    hints = []
    if any(isinstance(refusal, Violation) for refusal in found):
        hints.append(
            "train or quantise it better, or change spec.gates of the Model, or spec.constraints "
            "or spec.profile of the Target if the bound is wrong"
        )
    if any(isinstance(refusal, GoldenProblem) for refusal in found):
        hints.append(
            "make the golden data again from this version of the model, or widen "
            "spec.golden.tolerance if the difference is that of the precision"
        )
    raise GateError(
        f"{variant}: " + "; ".join(str(refusal) for refusal in found), hint="; ".join(hints)
    )
