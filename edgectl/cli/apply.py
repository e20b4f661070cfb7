"""`edgectl apply`: make the registry say what the manifests say."""

from __future__ import annotations

import json
import signal
from typing import TYPE_CHECKING, Any

import click

from edgectl.cli.options import (
    output_option,
    password_option,
    project_option,
    registry_options,
    selection_options,
)
from edgectl.cli.release_output import models_text
from edgectl.engine.tasks import main_metric
from edgectl.errors import ModelError
from edgectl.quantity import format_bytes, format_seconds

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from edgectl.apply.measured import Measurement
    from edgectl.apply.run import Failure, Report
    from edgectl.oci.access import Access
    from edgectl.plan.compare import Selection

_COLUMNS = ("model", "target", "precision", "metric", "as it came", "size", "p50", "p99", "memory")


@click.command()
@project_option
@selection_options
@click.option("--jobs", "-j", type=click.IntRange(1), help="Steps at a time.  [default: cores]")
@password_option
@output_option
@registry_options
def apply(
    root: Path,
    selection: Selection,
    jobs: int | None,
    password_file: Path | None,
    output: str,
    access: Access,
) -> int:
    """Build, measure, gate, package, sign and release what the plan says.

    Safe to stop at any moment and run again. A variant that fails stops the fleets that need it
    and nothing else; the exit code is then that of the first failure.
    """
    from edgectl.apply.run import Applier
    from edgectl.apply.workspace import Workspace
    from edgectl.cli.errors import show_error
    from edgectl.cli.password import read_password
    from edgectl.cli.plan import plan_json, show_plan
    from edgectl.cli.progress import show_progress

    # CI systems cancel a job with SIGTERM: end as on Ctrl-C, with no toolchain left running.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    workspace = Workspace.open(root, access)
    plan = workspace.plan(selection)
    if not plan.changed:
        if output == "json":
            click.echo(json.dumps(_report_json(plan_json(plan), None), indent=2))
        else:
            show_plan(plan)
            click.echo("Nothing to apply.")
        return 0
    if output == "text":
        show_plan(plan)
    password = read_password(workspace.password_file(password_file))
    with show_progress(plan, quiet=output == "json") as events:
        report = Applier(workspace, plan, password, jobs=jobs, events=events).run()
    if output == "json":
        click.echo(json.dumps(_report_json(plan_json(plan), report), indent=2))
    else:
        _show_report(report)
    for failure in report.failures[1:]:
        show_error(failure.error)
    report.raise_failure()
    return 0


def _show_report(report: Report) -> None:
    if report.measured:
        _show_measured(report.measured)
    for release in report.releases:
        click.echo(f"Released {release.fleet} generation {release.generation}:")
        for ring in release.rings:
            click.echo(f"  ring {ring.name:<12} {models_text(ring)}")
    for fleet, reason in report.withheld.items():
        click.secho("Not released: ", fg="yellow", nl=False)
        click.echo(f"{fleet}: {reason}")
    click.echo(f"Applied: {report.ran} steps run, {report.cached} cached.")


def _show_measured(measured: Sequence[Measurement]) -> None:
    """A table; latency and peak memory only where measured on the target's architecture."""
    rows = [_COLUMNS, *(_measured_row(each) for each in measured)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    click.echo("Measured:")
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        click.echo(f"  {'  '.join(cells)}".rstrip())
    cpus = {each.report["measuredOn"]["cpu"] for each in measured if _is_timed(each)}
    notes = [f"measured on {', '.join(sorted(cpus))}"] if cpus else []
    if not all(map(_is_timed, measured)):
        notes.append("- is left to the warm-up of the devices")
    click.echo(f"  Latency and memory: {'; '.join(notes)}")
    for each in measured:
        where = f"{each.model} for {each.report['target']}"
        if "arenaBytes" in each.report:
            click.echo(f"  {where}: the arena takes {format_bytes(each.report['arenaBytes'])}")
        if "deferred" in each.report:
            click.echo(f"  {where}: {each.report['deferred']}")


def _is_timed(measured: Measurement) -> bool:
    return "p50" in measured.report["latency"]


def _measured_row(measured: Measurement) -> tuple[str, ...]:
    report = measured.report
    metric = main_metric(report["metrics"])
    before = "" if metric is None else measured.baseline.get(metric, "")
    latency = [report["latency"].get(quantile) for quantile in ("p50", "p99")]
    memory = report.get("peakMemoryBytes")
    return (
        measured.model,
        report["target"],
        report["precision"],
        "-" if metric is None else f"{metric} {report['metrics'][metric]:.4f}",
        f"{before:.4f}" if isinstance(before, float) else "",
        format_bytes(report["sizeBytes"]),
        *("-" if seconds is None else format_seconds(seconds) for seconds in latency),
        "-" if memory is None else format_bytes(memory),
    )


def _report_json(plan: dict[str, Any], report: Report | None) -> dict[str, Any]:
    value = {
        "plan": plan,
        "measured": [],
        "releases": [],
        "failures": [],
        "withheld": {},
        "ran": 0,
        "cached": 0,
    }
    if report is None:
        return value
    return value | {
        "measured": [
            {"model": each.model, "report": dict(each.report), "baseline": dict(each.baseline)}
            for each in report.measured
        ],
        "releases": [json.loads(release.to_bytes()) for release in report.releases],
        "failures": [_failure_json(failure) for failure in report.failures],
        "withheld": dict(report.withheld),
        "ran": report.ran,
        "cached": report.cached,
    }


def _failure_json(failure: Failure) -> dict[str, Any]:
    step, error = failure.step, failure.error
    return {
        "step": step.title,
        "also": [each.title for each in failure.also],
        "kind": step.kind,
        "model": ":".join(step.model) if step.model else None,
        "target": step.target,
        "builder": step.builder and step.builder.name,
        "node": error.node if isinstance(error, ModelError) else None,
        "code": error.code,
        "message": error.message,
        "hint": error.hint,
    }
