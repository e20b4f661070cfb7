"""`edgectl serve`: the inference server of a device."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

_directory = click.Path(path_type=Path, file_okay=False)


@click.command()
@click.option("--state", type=_directory, help="A device's state directory: follow its slots.")
@click.option("--slot", help="Serve this slot (64 hex digits) of --state and follow nothing.")
@click.option("--model", type=_directory, help="Serve one model directory.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8080,
    show_default=True,
    help="Port to listen on; 0 takes a free one.",
)
@click.option(
    "--threads",
    type=click.IntRange(1, 1024),
    default=1,
    show_default=True,
    help="Processor threads of one inference.",
)
@click.option(
    "--workers",
    type=click.IntRange(1, 1024),
    default=1,
    show_default=True,
    help="Inferences at the same time.",
)
@click.option(
    "--queue",
    type=click.IntRange(0),
    default=64,
    show_default=True,
    help="Requests that may wait for a worker; more are refused with 503.",
)
@click.option(
    "--max-body",
    default="32Mi",
    show_default=True,
    help="Largest request, such as 32Mi; larger ones are refused with 413.",
)
@click.option(
    "--max-batch",
    type=click.IntRange(1),
    default=256,
    show_default=True,
    help="Largest batch in one request.",
)
@click.option(
    "--deadline",
    default="30s",
    show_default=True,
    help="Longest time for a request to arrive, and again to be answered.",
)
def serve(
    state: Path | None,
    slot: str | None,
    model: Path | None,
    max_body: str,
    deadline: str,
    **settings: Any,
) -> None:
    """Serve the models of a slot over the Open Inference Protocol.

    With --state, serves the slot that `current` points to and follows it without losing a request.
    """
    if (state is None) == (model is None):
        raise click.UsageError("say either --state or --model")
    if slot is not None and state is None:
        raise click.UsageError("--slot needs --state")
    import logging

    from edgectl.digest import Digest
    from edgectl.quantity import parse_bytes, parse_seconds
    from edgectl.serve import server

    logging.basicConfig(format="%(levelname)s %(name)s: %(message)s", level=logging.WARNING)
    try:
        config = server.ServeConfig(
            state=state,
            slot=Digest(slot) if slot else None,
            model=model,
            max_body=parse_bytes(max_body),
            deadline=parse_seconds(deadline),
            **settings,
        )
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    server.serve(config, lambda url: click.echo(f"listening on {url}"))
