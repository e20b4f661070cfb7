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
from edgectl.quantity import format_bytes, format_seconds

if TYPE_CHECKING:
    from pathlib import Path

    from edgectl.apply.measured import Measurement
    from edgectl.apply.run import Report
    from edgectl.oci.access import Access
    from edgectl.plan.compare import Selection


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
    from edgectl.cli.password import read_password
    from edgectl.cli.plan import plan_json, show_plan
    from edgectl.cli.progress import show_progress
    from edgectl.plan.compare import make_plan

    # CI systems cancel a job with SIGTERM: end as on Ctrl-C, with no toolchain left running.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    workspace = Workspace.open(root, access)
    desired = workspace.desired()
    plan = make_plan(desired, workspace.observe(desired), selection)
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
    report.raise_failure()
    return 0


def _show_report(report: Report) -> None:
    if report.measured:
        click.echo("Measured:")
    for measured in report.measured:
        click.echo(f"  {_measured_text(measured)}")
    for release in report.releases:
        click.echo(f"Released {release.fleet} generation {release.generation}:")
        for ring in release.rings:
            models = ", ".join(f"{model.name} {model.version}" for model in ring.models)
            click.echo(f"  ring {ring.name:<12} {models}")
    for error in report.failures:
        click.secho("Failed: ", fg="red", nl=False)
        click.echo(f"{error.title}: {error.error.message}")
        if error.error.hint:
            click.echo(f"  Next: {error.error.hint}")
    for fleet, reason in report.withheld.items():
        click.secho("Not released: ", fg="yellow", nl=False)
        click.echo(f"{fleet}: {reason}")
    click.echo(f"Applied: {report.ran} steps run, {report.cached} cached.")


def _measured_text(measured: Measurement) -> str:
    """One line; a latency only where it was measured on the target's architecture."""
    report = measured.report
    metrics = ", ".join(
        f"{name} {value:.4f} (imported {measured.baseline[name]:.4f})"
        for name, value in report["metrics"].items()
        if name in {"accuracy", "mae"}
    )
    latency = report["latency"]
    if "p50" in latency:
        times = f"p50 {format_seconds(latency['p50'])}, p99 {format_seconds(latency['p99'])}"
        latency_text = f"{times} on {report['measuredOn']['cpu']}"
    else:
        latency_text = f"latency left to the {latency['left']}"
    return (
        f"{measured.model:<14} {report['target']:<18} {report['precision']:<5} {metrics}, "
        f"{format_bytes(report['sizeBytes'])}, {latency_text}"
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
        "failures": [
            {
                "step": failure.title,
                "code": failure.error.code,
                "message": failure.error.message,
                "hint": failure.error.hint,
            }
            for failure in report.failures
        ],
        "withheld": dict(report.withheld),
        "ran": report.ran,
        "cached": report.cached,
    }
