"""Where the password of the signing keys comes from: a file, the environment, a prompt."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import click

from edgectl.errors import KeyFileError

if TYPE_CHECKING:
    from pathlib import Path

VARIABLE = "EDGECTL_KEY_PASSWORD"


def read_password(file: Path | None, *, confirm: bool = False) -> bytes:
    """The password of a key: from the file, else the environment, else a prompt.

    Raises KeyFileError where there is none of the three, or it is empty and a key is to be made
    with it (`confirm`).
    """
    password = _read(file, confirm=confirm)
    if confirm and not password:
        raise KeyFileError(
            "the password is empty, and would protect no key",
            hint=f"give one with --key-password-file, in {VARIABLE}, or at the prompt",
        )
    return password


def _read(file: Path | None, *, confirm: bool) -> bytes:
    if file is not None:
        try:
            return file.read_bytes().rstrip(b"\r\n")
        except OSError as error:
            raise KeyFileError(
                f"cannot read the password file {file}: {error.strerror}",
                hint="name it by --key-password-file or spec.signing.passwordFile, or set "
                f"{VARIABLE}",
            ) from error
    value = os.environ.get(VARIABLE)
    if value is not None:
        return value.encode()
    if not sys.stdin.isatty():
        raise KeyFileError(
            "the signing key needs a password, and there is no terminal to ask on",
            hint=f"set {VARIABLE}, or give --key-password-file",
        )
    # On stderr: stdout is what the verb prints, which may be JSON.
    text: str = click.prompt(
        "Password of the key", hide_input=True, confirmation_prompt=confirm, err=True
    )
    return text.encode()
