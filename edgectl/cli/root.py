"""The root command: verbs are imported when they are called, so that each starts fast and a
device needs only what its own verbs need."""

from __future__ import annotations

import importlib
import json
import os
import sys
import traceback
from typing import Any

import click

from edgectl import __version__
from edgectl.errors import ConfigError, EdgectlError

_USAGE_EXIT = 64
"""sysexits.h EX_USAGE: 2 is taken by `plan --detailed-exitcode`."""
_INTERRUPTED_EXIT = 130
_EXTRAS = {
    **dict.fromkeys(("httptools", "numpy", "onnxruntime", "PIL", "uvicorn"), "device"),
    **dict.fromkeys(("jinja2", "uv"), "build"),
}
"""Top-level module to the extra of edgectl that brings it."""

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
        kwargs["color"] = _color()
        try:
            code = super().main(*args, **kwargs)
        except click.ClickException as error:
            error.show()
            sys.exit(_USAGE_EXIT)
        except (click.Abort, KeyboardInterrupt):
            click.echo("interrupted", err=True)
            sys.exit(_INTERRUPTED_EXIT)
        except EdgectlError as error:
            show_error(error)
            sys.exit(error.exit_code)
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(1)
        except Exception as error:  # noqa: BLE001 - the last resort, so that users never see a traceback
            missing = _missing_extra(error)
            if missing is not None:
                show_error(missing)
                sys.exit(missing.exit_code)
            _show_bug(error)
            sys.exit(1)
        sys.exit(code if isinstance(code, int) else 0)


def _color() -> bool | None:
    """False where the user wants no colours (no-color.org); None lets a terminal decide."""
    return False if os.environ.get("NO_COLOR") else None


def show_error(error: EdgectlError) -> None:
    """Print an error to stderr, as JSON where the caller asked for JSON (`EDGECTL_ERRORS=json`)."""
    if os.environ.get("EDGECTL_ERRORS") == "json":
        value = {
            "code": error.code,
            "message": error.message,
            "hint": error.hint,
            "retry": error.retry,
            "exitCode": error.exit_code,
        }
        click.echo(json.dumps(value), err=True)
        return
    click.secho("Error: ", fg="red", bold=True, nl=False, err=True, color=_color())
    click.echo(error.message, err=True)
    if error.hint:
        click.secho("  Next: ", fg="cyan", nl=False, err=True, color=_color())
        click.echo(error.hint, err=True)


def _missing_extra(error: Exception) -> EdgectlError | None:
    """What to install, if the error is that a package of an extra is not there."""
    name = (error.name or "").partition(".")[0] if isinstance(error, ModuleNotFoundError) else ""
    if name not in _EXTRAS:
        return None
    return ConfigError(
        f"this needs {name}, which is not installed",
        hint=f"pip install 'edgectl[{_EXTRAS[name]}]'",
    )


def _show_bug(error: Exception) -> None:
    if os.environ.get("EDGECTL_DEBUG"):
        traceback.print_exception(error)
    click.secho("Error: ", fg="red", bold=True, nl=False, err=True, color=_color())
    click.echo(f"this is a bug in edgectl: {type(error).__name__}: {error}", err=True)
    click.secho("  Next: ", fg="cyan", nl=False, err=True, color=_color())
    click.echo("run again with EDGECTL_DEBUG=1 and report what it prints", err=True)


@click.group(
    cls=_LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, prog_name="edgectl")
def root() -> None:
    """GitOps for edge AI: manifests in Git, verified models on devices."""
