"""`edgectl agent`: run this device."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgectl.cli.options import output_option

if TYPE_CHECKING:
    from threading import Event

config_option = click.option(
    "--config",
    "-c",
    "path",
    type=click.Path(path_type=Path, dir_okay=False),
    default=Path("device.yaml"),
    show_default=True,
    help="The device's configuration.",
)


@click.group()
def agent() -> None:
    """Run this device: poll, verify, switch, roll back."""


@agent.command()
@config_option
@output_option
def once(path: Path, output: str) -> None:
    """Poll once and follow the release, if there is a new one.

    Exit code 0: the device runs what its release asks for. Any other: it goes on with what it
    ran, and the error says why.
    """
    from edgectl.agent.config import load
    from edgectl.agent.loop import poll_once
    from edgectl.agent.stopping import Stopped

    config = load(path)
    _log_to_stderr()
    try:
        outcome = poll_once(config, _stop_on_signals())
    except Stopped:
        raise click.Abort from None
    if output == "json":
        value = asdict(outcome) | {"slot": None if outcome.slot is None else str(outcome.slot)}
        click.echo(json.dumps(value))
        return
    words = {
        "updated": "updated",
        "up-to-date": "up to date",
        "unassigned": "no ring of the fleet selects this device",
    }
    slot = "nothing" if outcome.slot is None else f"slot {outcome.slot.short}"
    click.echo(
        f"{config.device}: {words[outcome.result]}; runs {slot}, generation {outcome.generation}"
        f"{f', ring {outcome.ring}' if outcome.ring else ''}"
        f"{' (stale: the release metadata has expired)' if outcome.stale else ''}"
    )


@agent.command()
@config_option
def run(path: Path) -> None:
    """Poll for ever, until SIGTERM, SIGINT or SIGHUP."""
    from edgectl.agent.config import load
    from edgectl.agent.loop import run as run_for_ever

    config = load(path)
    _log_to_stderr()
    run_for_ever(config, _stop_on_signals())


@agent.command()
@config_option
@output_option
def status(path: Path, output: str) -> None:
    """Show what this device runs, and what happened lately."""
    from edgectl.agent.config import load
    from edgectl.agent.report import status as read_status

    value = read_status(load(path))
    click.echo(json.dumps(value, indent=2) if output == "json" else _status_text(value))


def _status_text(value: dict[str, Any]) -> str:
    lines = [
        f"device      {value['device']}"
        + (f" (simulates {value['simulated']})" if value["simulated"] else ""),
        (
            f"fleet       {value['fleet']}, ring {value['ring'] or 'none'}, "
            f"generation {value['generation']}"
        ),
        f"state       {value['state']}" + (" (stale)" if value["stale"] else ""),
        f"runs        {_slot_text(value['slot'])}",
        f"before      {_slot_text(value['previous'])}",
        f"last poll   {value['polled'] or 'never'}",
    ]
    if value["problem"]:
        lines.append(f"problem     {value['problem']}")
    if value["error"]:
        lines.append(f"last error  {value['error']['code']}: {value['error']['message']}")
        if value["error"]["hint"]:
            lines.append(f"  Next: {value['error']['hint']}")
    if value["attempts"]:
        lines.append(f"next try    {value['nextAttempt']}, by `edgectl agent run`")
    lines += [
        f"refused     {item['kind']} {item['digest'][7:19]}: {item['reason']}"
        for item in value["failed"]
    ]
    lines += [f"{item['at']}  {item['state']}: {item['message']}" for item in value["history"]]
    return "\n".join(lines)


def _slot_text(slot: dict[str, Any] | None) -> str:
    if slot is None:
        return "nothing"
    if slot.get("error"):
        return f"a slot that cannot be read: {slot['error']}"
    models = ", ".join(
        f"{model['name']} {model['version']} for {model['target']} ({model['precision']})"
        for model in slot["models"]
    )
    return f"{models or 'no models'}, slot {slot['digest'][7:19]}"


def _log_to_stderr() -> None:
    import logging

    logging.basicConfig(
        format="%(asctime)s level=%(levelname)s logger=%(name)s %(message)s", level=logging.INFO
    )


def _stop_on_signals() -> Event:
    """An event that is set when somebody asks the agent to end, so that its work ends where
    nothing is half done. What `nohup` has the process ignore is ignored."""
    import signal
    from threading import Event

    from edgectl.agent.child import STOPPING

    stop = Event()
    for number in STOPPING:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, lambda *_: stop.set())
    return stop
