"""What Docker keeps of a login: config.json and credential helpers.

oras-py reads both. Added to it are identity tokens, which it does not know, and an end to a helper
that hangs.
"""

from __future__ import annotations

import base64
import json
import os
import subprocess
from pathlib import Path
from typing import Any, NamedTuple

from oras.auth.token import TokenAuth
from oras.auth.utils import get_basic_auth
from oras.logger import logger

from edgectl.errors import ConfigError

HELPER_SECONDS = 60.0
"""A credential helper may ask a person for a passphrase; a device has nobody to answer."""
_IDENTITY = "<token>"
"""The user name by which a credential helper says that its secret is an identity token."""
_NOTHING_KEPT = b"credentials not found in native keychain"
"""What a helper prints, and exits with 1, where it has nothing for a host."""
_DOCKER_HUB = "docker.io"
_DOCKER_HUB_KEY = "https://index.docker.io/v1/"
_MALFORMED = (OSError, ValueError, KeyError, TypeError, AttributeError)


class Credentials(NamedTuple):
    """What a registry, or its token service, knows a user by."""

    basic: str | None = None
    """`base64(user:password)`."""
    identity_token: str | None = None
    """What a login gave in place of a password: for the token service alone, which is asked with it
    where there is one."""

    @classmethod
    def of(cls, username: str, password: str) -> Credentials:
        """Credentials of a user name and password."""
        return cls(str(get_basic_auth(username, password)))


def find_credentials(host: str, path: Path | None) -> Credentials:
    """What is kept for a registry host in a config.json, or in the usual one if `path` is None.

    Raises ConfigError if the file or what it keeps for the host is not usable.
    """
    if path is None:
        path = Path(os.environ.get("DOCKER_CONFIG") or Path.home() / ".docker") / "config.json"
        if not path.exists():
            return Credentials()
    config = _DockerConfig(path)
    try:
        return config.find(host)
    except _MALFORMED as error:
        # Not from the error: it can hold what is to stay secret.
        raise ConfigError(
            f"the credentials that Docker keeps for {host} are not usable ({type(error).__name__})",
            hint=f"log in again with `docker login {host}`, or check its credential helper",
        ) from None


class _DockerConfig(TokenAuth):  # type: ignore[misc]  # oras-py has no types
    """One config.json: inline credentials, identity tokens, helpers, stores."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._identity: str | None = None
        try:
            config = json.loads(path.read_text(encoding="utf-8"))
            self._auth_config = {
                "auths": dict(config.get("auths") or {}),
                "credHelpers": dict(config.get("credHelpers") or {}),
                "credsStore": config.get("credsStore"),
            }
        except _MALFORMED as error:
            raise ConfigError(
                f"{path} is not a Docker config.json: {type(error).__name__}",
                hint="it holds credentials under `auths`",
            ) from error

    def find(self, host: str) -> Credentials:
        """What is kept for a host, under one of the names that Docker gives it."""
        keys = [host, f"https://{host}", f"http://{host}"]
        if host == _DOCKER_HUB:
            keys.append(_DOCKER_HUB_KEY)
        for key in keys:
            entry = self._auth_config["auths"].get(key) or {}
            if entry.get("identitytoken") and not self._has_helper(key):
                basic = _checked(entry["auth"]) if entry.get("auth") else None
                return Credentials(basic, _text(entry["identitytoken"]))
            if self._load_auth(key):
                if self._identity is not None:
                    return Credentials(None, self._identity)
                return Credentials(_checked(str(self._basic_auth)))
        return Credentials()

    def _has_helper(self, key: str) -> bool:
        """Whether a helper is asked for a host: what it says replaces an older token."""
        config = self._auth_config
        return bool(config["credHelpers"].get(key) or config["credsStore"])

    def _get_auth_from_creds_store(self, suffix: str, hostname: str) -> str | None:
        """As oras-py's; raises ConfigError if the helper does not answer."""
        helper = f"docker-credential-{suffix}"
        try:
            status, said, complaint = _asked([helper, "get"], hostname.encode())
        except FileNotFoundError:
            logger.warning(f"Credential helper '{helper}' not found in PATH")
            return None
        except subprocess.TimeoutExpired:
            raise ConfigError(
                f"{helper} did not answer in {HELPER_SECONDS:.0f} s",
                hint=f"try `echo {hostname} | {helper} get`: it may want a passphrase",
            ) from None
        if status != 0:
            if _NOTHING_KEPT not in said:
                reason = complaint.decode(errors="replace").strip()
                logger.warning(f"Credential helper '{helper}' failed: {reason}")
            return None
        found = json.loads(said)
        user, secret = _text(found["Username"]), _text(found["Secret"])
        if user == _IDENTITY:
            self._identity = secret
        return str(get_basic_auth(user, secret))


def _asked(command: list[str], question: bytes) -> tuple[int, bytes, bytes]:
    """Exit status, output and error output of a program; raises FileNotFoundError, and
    subprocess.TimeoutExpired without waiting for what the program may have started."""
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe) as program:
        try:
            said, complaint = program.communicate(question, timeout=HELPER_SECONDS)
        except BaseException:
            program.kill()
            raise
    return program.returncode, said, complaint


def _checked(encoded: str) -> str:
    """Credentials as they are sent; raises ValueError if they are not base64 of `user:password`."""
    if b":" not in base64.b64decode(encoded, validate=True):
        raise ValueError("no user and password")
    return encoded


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError("a credential is a text")
    return value
