"""What an apply measured of each variant, and of it what may be said of the target."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgectl.build.evaluation import report_for
from edgectl.plan.step import StepKind

if TYPE_CHECKING:
    from collections.abc import Mapping

    from edgectl.apply.result import StepResult
    from edgectl.apply.schedule import Outcome
    from edgectl.plan.step import Step


@dataclass(frozen=True, slots=True)
class Measurement:
    """One evaluated variant."""

    model: str
    """Name and version, `digits:1.0.0`."""
    report: Mapping[str, Any]
    """`edgectl.build.evaluation.report_for`'s."""
    baseline: Mapping[str, float]
    """Metrics of the imported model."""


def report_of(packaged: Step, evaluated: StepResult) -> dict[str, Any]:
    """The report of a variant, from its package step and the result of its evaluation."""
    return report_for(
        evaluated.metadata,
        target=packaged.params["target"],
        architecture=packaged.params["platform"]["architecture"],
        precision=packaged.params["precision"],
    )


def measurements(outcomes: Mapping[str, Outcome]) -> list[Measurement]:
    """Every variant that was evaluated, whether it passed its gates or not, in a fixed order."""
    found = []
    for outcome in outcomes.values():
        step = outcome.step
        if step.kind is not StepKind.PACKAGE or "evaluation" not in step.uses:
            continue
        evaluated = outcomes[step.uses["evaluation"]].result
        baseline = outcomes[step.uses["baseline"]].result
        if evaluated is None or baseline is None:
            continue
        name = ":".join(step.model or ())
        found.append(Measurement(name, report_of(step, evaluated), baseline.metadata["metrics"]))
    return sorted(found, key=lambda each: (each.model, each.report["target"]))
