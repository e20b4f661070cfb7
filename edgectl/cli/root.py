"""The root command: verbs are imported when they are called, so that each starts fast and a
device needs only what its own verbs need."""

from __future__ import annotations

import importlib
import os
import sys
from typing import Any

import click

from edgectl import __version__
from edgectl.cli import errors

VERBS = {
    "agent": "Run this device: poll, verify, switch, roll back.",
    "apply": "Make the registry say what the manifests say.",
    "builders": "Make the toolchains ahead of an apply.",
    "doctor": "List the toolchains: ready, installable, or impossible here.",
    "explain": "Say which variant a device gets, and why each other one not.",
    "history": "List the releases of a fleet.",
    "keys": "Make and inspect signing keys.",
    "plan": "Show what apply would change.",
    "rollback": "Release an earlier generation of a fleet again.",
    "rollout": "Advance or resume the rollout of a fleet.",
    "schema": "Write the JSON Schema of the manifest kinds.",
    "serve": "Serve the models of a slot over the Open Inference Protocol.",
    "sign": "Sign a manifest or index and all below it.",
    "status": "Show registry, releases, rings and versions.",
    "trust": "Make and refresh the release metadata (TUF).",
    "validate": "Check the manifests.",
    "verify": "Verify a reference: every signature and every byte below it.",
}
"""Verb to short help; `edgectl.cli.<verb>` holds a click command of the verb's name."""


class _LazyGroup(click.Group):
    """A group whose commands live in modules that are imported on use."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in VERBS:
            return None
        command = getattr(importlib.import_module(f"edgectl.cli.{cmd_name}"), cmd_name)
        if not isinstance(command, click.Command):
            raise TypeError(f"edgectl.cli.{cmd_name}.{cmd_name} is not a command")
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(sorted(VERBS.items()))

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            import difflib

            close = difflib.get_close_matches(args[0], VERBS, n=1)
            if not close:
                raise
            message = f"{error.message} Did you mean {close[0]!r}?"
            raise click.UsageError(message, ctx) from error

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Run, and turn every error into a message, a hint and an exit code."""
        kwargs["standalone_mode"] = False
        kwargs["color"] = errors.color()
        errors.start_run()
        try:
            code = super().main(*args, **kwargs)
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(1)
        except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 - users never see a traceback
            sys.exit(errors.exit_code_of(error))
        sys.exit(code if isinstance(code, int) else 0)


@click.group(
    cls=_LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, prog_name="edgectl")
def root() -> None:
    """GitOps for edge AI: manifests in Git, verified models on devices."""
