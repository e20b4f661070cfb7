"""Progress of an apply: bars on a terminal, a line a step elsewhere, nothing with -o json."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from collections.abc import Iterator

    from edgectl.apply.events import Events
    from edgectl.plan.compare import Plan
    from edgectl.plan.step import Step


@contextmanager
def show_progress(plan: Plan, *, quiet: bool) -> Iterator[Events]:
    """Events that show what they are told, for as long as the context is open."""
    from edgectl.apply.events import Events
    from edgectl.plan.compare import steps_of

    if quiet:
        yield Events()
    elif sys.stderr.isatty():
        with _bars(len(list(steps_of(plan)))) as events:
            yield events
    else:
        yield Events(on_end=lambda step, how: click.echo(f"  {how:<8} {step.title}", err=True))


@contextmanager
def _bars(total: int) -> Iterator[Events]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn

    from edgectl.apply.events import Events

    tasks: dict[str, TaskID] = {}
    with Progress(
        TextColumn("{task.description:<52}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        console=Console(stderr=True),
        transient=True,
    ) as progress:
        overall = progress.add_task("steps", total=total)

        def start(step: Step) -> None:
            tasks[step.key] = progress.add_task(step.title, total=100)

        def advance(step: Step, fraction: float, message: str) -> None:
            if step.key in tasks:
                progress.update(
                    tasks[step.key],
                    completed=round(fraction * 100),
                    description=f"{step.title}: {message}"[:52],
                )

        def end(step: Step, how: str) -> None:
            progress.advance(overall)
            task = tasks.pop(step.key, None)
            if task is not None:
                progress.remove_task(task)
            progress.console.print(f"  {how:<8} {step.title}", highlight=False, markup=False)

        yield Events(on_start=start, on_progress=advance, on_end=end)
