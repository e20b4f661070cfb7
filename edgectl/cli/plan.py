"""`edgectl plan`: what apply would change."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from edgectl.cli.options import (
    output_option,
    project_option,
    registry_options,
    selection_options,
)

if TYPE_CHECKING:
    from pathlib import Path

    from edgectl.oci.access import Access
    from edgectl.plan.compare import FleetChange, ModelChange, Plan, Selection

_SIGNS = {"create": ("+", "green"), "update": ("~", "yellow"), "blocked": ("!", "red")}
_CHANGES = 2
"""Exit code of `--detailed-exitcode` where there are changes, as Terraform's."""


@click.command()
@project_option
@selection_options
@click.option("--detailed-exitcode", is_flag=True, help="Exit with 2 where there are changes.")
@output_option
@registry_options
def plan(
    root: Path, selection: Selection, detailed_exitcode: bool, output: str, access: Access
) -> int:
    """Show what apply would change. Changes nothing.

    The exit code is 0, or 2 with --detailed-exitcode where there are changes.
    """
    from edgectl.apply.workspace import Workspace

    made = Workspace.open(root, access).plan(selection)
    if output == "json":
        click.echo(json.dumps(plan_json(made), indent=2))
    else:
        show_plan(made)
    return _CHANGES if detailed_exitcode and made.changed else 0


def show_plan(plan: Plan) -> None:
    """Print a plan for people."""
    for change in plan.models:
        _show_model(change)
    for fleet in plan.fleets:
        _show_fleet(fleet)
    actions = [str(change.action) for change in plan.models]
    actions += [str(change.action) for change in plan.fleets]
    counts = ", ".join(
        f"{actions.count(action)} {'' if action == 'blocked' else 'to '}{action}"
        for action in _SIGNS
        if action in actions
    )
    if not plan.changed:
        click.echo(_nothing(plan))
        return
    steps = {step.key for change in plan.models for step in change.run}
    cached = {key for change in plan.models for key in change.cached}
    click.echo(f"Plan: {counts}; {len(steps)} build steps, {len(cached)} of them cached.")


def _nothing(plan: Plan) -> str:
    if plan.selection != type(plan.selection)():
        return "No changes in what is selected."
    if not plan.models:
        return (
            "Nothing to do: no Fleet of the project names a model, and models are built for fleets."
        )
    return "No changes: the registry says what the manifests say."


def _show_model(change: ModelChange) -> None:
    if change.steps is None:
        for note in change.reasons:
            click.echo(f"    model {change.model.name}:{change.model.version}: {note}")
        return
    _line(change.action, f"model {change.model.name}:{change.model.version}", change.reasons)
    planned = {step.key for step in change.run}
    for variant in change.steps.variants:
        if variant.package.key not in planned:
            continue
        state = "cached" if variant.package.key in change.cached else "build"
        click.echo(f"      {variant.target:<22} {variant.precision:<5} {state}")


def _show_fleet(change: FleetChange) -> None:
    if change.action == "unchanged":
        for note in change.reasons:
            click.echo(f"    fleet {change.fleet.name}: {note}")
        return
    _line(change.action, f"fleet {change.fleet.name}", ())
    for reason in change.reasons:
        click.echo(f"      {reason}")


def _line(action: str, what: str, reasons: tuple[str, ...]) -> None:
    sign, colour = _SIGNS[action]
    click.secho(f"  {sign} ", fg=colour, nl=False)
    click.echo(f"{what:<28} {action}" + (f"  ({', '.join(reasons)})" if reasons else ""))


def plan_json(plan: Plan) -> dict[str, Any]:
    """The plan for machines."""
    return {
        "changed": plan.changed,
        "models": [_model_json(change) for change in plan.models],
        "fleets": [
            {
                "name": change.fleet.name,
                "action": change.action,
                "reasons": list(change.reasons),
                "generation": change.release.generation if change.release else None,
                "pending": [":".join(key) for key in change.pending],
            }
            for change in plan.fleets
        ],
    }


def _model_json(change: ModelChange) -> dict[str, Any]:
    return {
        "name": change.model.name,
        "version": change.model.version,
        "action": change.action,
        "reasons": list(change.reasons),
        "variants": [
            {"target": variant.target.name, "precision": variant.precision}
            for variant in change.model.variants
        ],
        "steps": [
            {
                "kind": step.kind,
                "key": step.key,
                "title": step.title,
                "target": step.target,
                "builder": step.builder and step.builder.name,
                "cached": step.key in change.cached,
            }
            for step in change.run
        ],
    }
