"""Answer a registry's `WWW-Authenticate`: basic credentials or bearer tokens.

oras-py finds credentials (Docker's config.json, credential helpers). The rest is ours: oras-py
keeps one token whatever its scope, sends basic credentials to the realm of a *Basic* challenge as
if it were a URL, retries with sleeps, and takes minutes over a challenge that is long enough.
"""

from __future__ import annotations

import base64
import json
import os
import re
import threading
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from oras.auth.token import TokenAuth
from oras.auth.utils import get_basic_auth

from edgectl.errors import ConfigError, RegistryDeniedError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from edgectl.oci.access import Access

    TokenRequest = Callable[[str, Mapping[str, str], Mapping[str, str]], bytes]
    """Get a URL with query and headers; raises the errors of the family."""

_DOCKER_HUB = "docker.io"
_DOCKER_HUB_KEY = "https://index.docker.io/v1/"
_MAX_CHALLENGE = 8192
_CHALLENGE = re.compile(r"(?:^|,)\s*(basic|bearer)(?=[\s,]|$)", re.IGNORECASE)
_PARAMETER = re.compile(r'(?<![\w-])([\w-]++)\s*=\s*(?:"((?:[^"\\]|\\.)*+)"|([^\s",]++))')
_TOKEN = re.compile(r"[A-Za-z0-9._~+/-]+=*")
"""What may be sent as a bearer token (RFC 6750, 2.1)."""


class Authenticator:
    """The credentials for one registry host, and the tokens got with them."""

    def __init__(self, host: str, access: Access, request: TokenRequest) -> None:
        self._host = host
        self._access = access
        self._request = request
        self._basic: str | None = None
        self._found = False
        self._use_basic = False
        self._tokens: dict[tuple[str, bool], str] = {}
        self._lock = threading.Lock()

    def header(self, repository: str, *, write: bool) -> str | None:
        """The `Authorization` to send, as far as one is known to be wanted."""
        if self._use_basic:
            return f"Basic {self._credentials()}"
        token = self._tokens.get((repository, write))
        if token is None and not write:
            token = self._tokens.get((repository, True))
        return None if token is None else f"Bearer {token}"

    def answer(self, repository: str, challenge: str, sent: str | None, *, write: bool) -> bool:
        """Get ready to repeat a request that was challenged.

        `sent` is the `Authorization` that was refused. False if there is nothing better to send.
        Raises RegistryDeniedError if credentials would travel in the clear unasked.
        """
        with self._lock:
            scheme, parameters = parse_challenge(challenge)
            if scheme == "basic":
                self._use_basic = self._credentials() is not None
                return self.header(repository, write=write) not in {None, sent}
            if scheme != "bearer":
                return False
            if self.header(repository, write=write) not in {None, sent}:
                return True  # another thread got a new token meanwhile
            self._tokens.pop((repository, write), None)
            self._tokens.pop((repository, True), None)
            token = self._token(parameters)
            if token is None:
                return False
            self._tokens[repository, write] = token
            return True

    def _token(self, parameters: Mapping[str, str]) -> str | None:
        """Ask the realm for a token (distribution's token authentication specification)."""
        realm = parameters.get("realm")
        if realm is None:
            return None
        try:
            scheme = urlsplit(realm).scheme
        except ValueError:
            scheme = ""
        if scheme != "https" and not (scheme == "http" and self._access.insecure):
            raise RegistryDeniedError(
                f"registry {self._host} wants credentials at {realm[:200]!r}, which is not TLS",
                hint="plain HTTP is asked for with --insecure",
            )
        query = {name: parameters[name] for name in ("service", "scope") if parameters.get(name)}
        basic = self._credentials()
        headers = {} if basic is None else {"Authorization": f"Basic {basic}"}
        try:
            answer = json.loads(self._request(realm, query, headers))
            token = answer.get("token") or answer.get("access_token")
        except (ValueError, AttributeError):
            return None
        return token if isinstance(token, str) and _TOKEN.fullmatch(token) else None

    def _credentials(self) -> str | None:
        """`base64(user:password)`, looked for once."""
        if not self._found:
            self._basic = self._find()
            self._found = True
        return self._basic

    def _find(self) -> str | None:
        access = self._access
        if access.username is not None:
            return str(get_basic_auth(access.username, access.password or ""))
        return _DockerConfig(access.docker_config).find(self._host)


def parse_challenge(header: str) -> tuple[str, dict[str, str]]:
    """Scheme and parameters of the first challenge that can be answered (RFC 9110, 11.6.1).

    No scheme if there is none, or the header is longer than any that is meant.
    """
    match = None if len(header) > _MAX_CHALLENGE else _CHALLENGE.search(header)
    if match is None:
        return "", {}
    parameters: dict[str, str] = {}
    for name, quoted, token in _PARAMETER.findall(header, match.end()):
        parameters.setdefault(name.lower(), re.sub(r"\\(.)", r"\1", quoted) or token)
    return match[1].lower(), parameters


class _DockerConfig(TokenAuth):  # type: ignore[misc]  # oras-py has no types
    """Docker's config.json: inline credentials, helpers, stores."""

    def __init__(self, path: Path | None) -> None:
        super().__init__()
        if path is None:
            home = os.environ.get("DOCKER_CONFIG") or Path.home() / ".docker"
            path = Path(home) / "config.json"
            if not path.exists():
                return
        try:
            config = json.loads(path.read_text(encoding="utf-8"))
            self._auth_config = {
                "auths": dict(config.get("auths") or {}),
                "credHelpers": dict(config.get("credHelpers") or {}),
                "credsStore": config.get("credsStore"),
            }
        except (OSError, ValueError, AttributeError, TypeError) as error:
            raise ConfigError(
                f"{path} is not a Docker config.json: {type(error).__name__}",
                hint="it holds credentials under `auths`",
            ) from error

    def find(self, host: str) -> str | None:
        """`base64(user:password)` for a host; raises ConfigError if what is kept is none."""
        keys = [host, f"https://{host}", f"http://{host}"]
        if host == _DOCKER_HUB:
            keys.append(_DOCKER_HUB_KEY)
        try:
            if any(self._load_auth(key) for key in keys):
                return _checked(str(self._basic_auth))
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            # Not from the error: it can hold what is to stay secret.
            raise ConfigError(
                f"the credentials that Docker keeps for {host} are not usable "
                f"({type(error).__name__})",
                hint=f"log in again with `docker login {host}`, or check its credential helper",
            ) from None
        return None


def _checked(encoded: str) -> str:
    """Credentials as they are sent; raises ValueError if they are not base64 of `user:password`."""
    if b":" not in base64.b64decode(encoded, validate=True):
        raise ValueError("no user and password")
    return encoded
