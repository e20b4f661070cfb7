"""How a run that fails ends: a sentence and a next step, or a line of JSON, and an exit code."""

from __future__ import annotations

import errno
import json
import os
import traceback
from contextvars import ContextVar

import click

from edgectl.errors import ConfigError, EdgectlError, Retry, StorageFullError

USAGE_EXIT = 64
"""sysexits.h EX_USAGE: 2 is taken by `plan --detailed-exitcode`."""
INTERRUPTED_EXIT = 130
"""What shells report of a process that SIGINT ended."""
_BUG_EXIT = 1
_EXTRAS = {
    **dict.fromkeys(("httptools", "numpy", "onnxruntime", "PIL", "uvicorn"), "device"),
    **dict.fromkeys(("jinja2", "uv"), "build"),
}
"""Top-level module to the extra of edgectl that brings it."""

_json_wanted: ContextVar[bool] = ContextVar("json_wanted")


def start_run() -> None:
    """Show errors as the environment says, until `want_json` is called."""
    _json_wanted.set(os.environ.get("EDGECTL_ERRORS") == "json")


def want_json() -> None:
    """Show the errors of this run as JSON: its caller asked for JSON on standard output."""
    _json_wanted.set(True)


def color() -> bool | None:
    """False where colours are not wanted (no-color.org) or not had; None lets a terminal decide."""
    return False if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb" else None


def exit_code_of(error: BaseException) -> int:
    """Show any error that ends a run; its exit code."""
    if isinstance(error, EdgectlError):
        show_error(error)
        return error.exit_code
    if isinstance(error, click.ClickException):
        _show_usage(error)
        return USAGE_EXIT
    if isinstance(error, (click.Abort, KeyboardInterrupt)):
        _show("cancelled", INTERRUPTED_EXIT, "interrupted", prefix="")
        return INTERRUPTED_EXIT
    known = _missing_extra(error) or _full_disk(error)
    if known is not None:
        return exit_code_of(known)
    if os.environ.get("EDGECTL_DEBUG"):
        traceback.print_exception(error)
    _show(
        "bug",
        _BUG_EXIT,
        f"this is a bug in edgectl: {type(error).__name__}: {error}",
        hint="run again with EDGECTL_DEBUG=1 and report what it prints",
    )
    return _BUG_EXIT


def show_error(error: EdgectlError) -> None:
    """Print an error to stderr, as one line of JSON where the caller asked for that."""
    _show(error.code, error.exit_code, error.message, hint=error.hint, retry=error.retry)


def _show_usage(error: click.ClickException) -> None:
    if not _json_wanted.get(False):
        error.show()
        return
    context = error.ctx if isinstance(error, click.UsageError) else None
    hint = f"see `{context.command_path} --help`" if context else None
    _show("usage", USAGE_EXIT, error.format_message(), hint=hint)


def _show(
    code: str,
    exit_code: int,
    message: str,
    *,
    hint: str | None = None,
    retry: Retry = Retry.NEVER,
    prefix: str = "Error: ",
) -> None:
    if _json_wanted.get(False):
        value = {
            "code": code,
            "message": message,
            "hint": hint,
            "retry": retry,
            "exitCode": exit_code,
        }
        click.echo(json.dumps(value), err=True)
        return
    if prefix:
        click.secho(prefix, fg="red", bold=True, nl=False, err=True, color=color())
    click.echo(message, err=True)
    if hint:
        click.secho("  Next: ", fg="cyan", nl=False, err=True, color=color())
        click.echo(hint, err=True)


def _missing_extra(error: BaseException) -> EdgectlError | None:
    """What to install, if the error is that a package of an extra is not there."""
    name = (error.name or "").partition(".")[0] if isinstance(error, ModuleNotFoundError) else ""
    if name not in _EXTRAS:
        return None
    return ConfigError(
        f"this needs {name}, which is not installed",
        hint=f"pip install 'edgectl[{_EXTRAS[name]}]'",
    )


def _full_disk(error: BaseException) -> EdgectlError | None:
    """What to do about a full disk that no verb expected, such as below a redirected output."""
    if not isinstance(error, OSError) or error.errno != errno.ENOSPC:
        return None
    place = error.filename or "what the output is written to"
    return StorageFullError(f"no space is left for {place}", hint="free some, and run it again")
