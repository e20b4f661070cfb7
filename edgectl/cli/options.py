"""Options that several verbs share, each defined once."""

from __future__ import annotations

import os
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgectl.cli.errors import want_json
from edgectl.errors import ConfigError
from edgectl.oci.access import Access

if TYPE_CHECKING:
    from collections.abc import Callable

    Function = Callable[..., Any]

project_option = click.option(
    "--project",
    "-C",
    "root",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path(),
    help="Directory of edgectl.yaml.  [default: here]",
)


def _note_output(_context: click.Context, _option: click.Parameter, form: str) -> str:
    """Who reads the result as JSON reads the errors so too."""
    if form == "json":
        want_json()
    return form


output_option = click.option(
    "--output",
    "-o",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    callback=_note_output,
    help="How to print the result, and errors.",
)

password_option = click.option(
    "--key-password-file",
    "password_file",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    help="File that holds the password of the keys (or EDGECTL_KEY_PASSWORD; else it is asked).",
)


def selection_options(function: Function) -> Function:
    """Add the options that select a part of a plan; the verb gets them as `selection`."""

    @click.option("--model", "models", multiple=True, metavar="NAME", help="Only this model.")
    @click.option("--target", "targets", multiple=True, metavar="NAME", help="Only this target.")
    @click.option("--fleet", "fleets", multiple=True, metavar="NAME", help="Only this fleet.")
    @wraps(function)
    def wrapper(
        *args: Any,
        models: tuple[str, ...],
        targets: tuple[str, ...],
        fleets: tuple[str, ...],
        **kwargs: Any,
    ) -> Any:
        from edgectl.plan.compare import Selection

        selection = Selection(frozenset(models), frozenset(targets), frozenset(fleets))
        return function(*args, selection=selection, **kwargs)

    return wrapper


def registry_options(function: Function) -> Function:
    """Add the options that say how to reach a registry; the verb gets them as `access`."""

    @click.option("--username", envvar="EDGECTL_REGISTRY_USERNAME", help="Registry user name.")
    @click.option(
        "--password-file",
        "registry_password_file",
        type=click.Path(path_type=Path, dir_okay=False, exists=True),
        help="File that holds the registry password (or EDGECTL_REGISTRY_PASSWORD).",
    )
    @click.option(
        "--docker-config",
        type=click.Path(path_type=Path, dir_okay=False, exists=True),
        help="Docker config.json with credentials.  [default: ~/.docker/config.json]",
    )
    @click.option(
        "--ca-file",
        type=click.Path(path_type=Path, dir_okay=False, exists=True),
        help="CA certificates that the registry's certificate chains to.",
    )
    @click.option("--insecure", is_flag=True, help="Speak plain HTTP to the registry.")
    @wraps(function)
    def wrapper(
        *args: Any,
        username: str | None,
        registry_password_file: Path | None,
        docker_config: Path | None,
        ca_file: Path | None,
        insecure: bool,
        **kwargs: Any,
    ) -> Any:
        access = Access(
            username=username,
            password=_registry_password(registry_password_file),
            docker_config=docker_config,
            ca_file=ca_file,
            insecure=insecure,
        )
        return function(*args, access=access, **kwargs)

    return wrapper


def _registry_password(file: Path | None) -> str | None:
    if file is None:
        return os.environ.get("EDGECTL_REGISTRY_PASSWORD")
    try:
        return file.read_text(encoding="utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise ConfigError(
            f"{file} holds no password: {reason}",
            hint="put the password alone into a file that you may read",
        ) from error
