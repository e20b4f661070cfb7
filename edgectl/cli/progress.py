"""Progress of an apply: bars on a terminal, a line a step elsewhere, nothing with -o json."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from edgectl.apply.events import Events
    from edgectl.plan.compare import Plan
    from edgectl.plan.step import Step


@contextmanager
def show_progress(plan: Plan, *, quiet: bool) -> Iterator[Events]:
    """Events that show what they are told, for as long as the context is open."""
    from edgectl.apply.events import Events
    from edgectl.plan.compare import steps_of

    blocked = _Blocked()
    if quiet:
        yield Events()
    elif sys.stderr.isatty():
        with _bars(len(list(steps_of(plan))), blocked) as events:
            yield events
    else:
        yield Events(on_end=lambda step, how: blocked.tell(step, how, _line))
    if blocked.count:
        steps = "1 step that needs" if blocked.count == 1 else f"{blocked.count} steps that need"
        _line(f"  blocked  {steps} what failed")


def _line(text: str) -> None:
    click.echo(text, err=True)


class _Blocked:
    """Steps that were never begun: they are counted and not told, for what failed is."""

    count = 0

    def tell(self, step: Step, how: str, tell: Callable[[str], object]) -> None:
        """Tell how a step ended, or count it."""
        if how == "blocked":
            self.count += 1
        else:
            tell(f"  {how:<8} {step.title}")


@contextmanager
def _bars(total: int, blocked: _Blocked) -> Iterator[Events]:
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
        show = progress.console.print

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
            blocked.tell(step, how, lambda text: show(text, highlight=False, markup=False))

        yield Events(on_start=start, on_progress=advance, on_end=end)
