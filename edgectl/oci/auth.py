"""Answer a registry's `WWW-Authenticate`: basic credentials or bearer tokens.

oras-py finds credentials (Docker's config.json, credential helpers) and reads challenges. The
flow around it is ours: oras-py keeps one token whatever its scope, sends basic credentials to
the realm of a *Basic* challenge as if it were a URL, and retries with sleeps.
"""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from oras.auth.token import TokenAuth
from oras.auth.utils import get_basic_auth, parse_auth_header

from edgectl.errors import ConfigError, RegistryDeniedError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from edgectl.oci.access import Access

    TokenRequest = Callable[[str, Mapping[str, str], Mapping[str, str]], bytes]
    """Get a URL with query and headers; raises the errors of the family."""

_DOCKER_HUB = "docker.io"
_DOCKER_HUB_KEY = "https://index.docker.io/v1/"


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
            scheme = challenge.partition(" ")[0].lower()
            if scheme == "basic":
                self._use_basic = self._credentials() is not None
                return self.header(repository, write=write) not in {None, sent}
            if scheme != "bearer":
                return False
            if self.header(repository, write=write) not in {None, sent}:
                return True  # another thread got a new token meanwhile
            self._tokens.pop((repository, write), None)
            self._tokens.pop((repository, True), None)
            token = self._token(challenge)
            if token is None:
                return False
            self._tokens[repository, write] = token
            return True

    def _token(self, challenge: str) -> str | None:
        """Ask the realm for a token (distribution's token authentication specification)."""
        parsed = parse_auth_header(challenge)
        realm = parsed.realm or ""
        scheme = urlsplit(realm).scheme
        if scheme != "https" and not (scheme == "http" and self._access.insecure):
            raise RegistryDeniedError(
                f"registry {self._host} wants credentials sent to {realm!r}, which is not TLS",
                hint="plain HTTP is asked for with --insecure",
            )
        query = {
            name: value
            for name, value in (("service", parsed.service), ("scope", parsed.scope))
            if value
        }
        basic = self._credentials()
        headers = {} if basic is None else {"Authorization": f"Basic {basic}"}
        try:
            answer = json.loads(self._request(realm, query, headers))
            token = answer.get("token") or answer.get("access_token")
        except (ValueError, AttributeError):
            return None
        return token if isinstance(token, str) else None

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
        """`base64(user:password)` for a host."""
        keys = [host, f"https://{host}", f"http://{host}"]
        if host == _DOCKER_HUB:
            keys.append(_DOCKER_HUB_KEY)
        for key in keys:
            if self._load_auth(key):
                return str(self._basic_auth)
        return None
