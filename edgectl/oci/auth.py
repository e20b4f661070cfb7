"""Answer a registry's `WWW-Authenticate`: basic credentials or bearer tokens.

oras-py finds credentials (Docker's config.json, credential helpers). The rest is ours: oras-py
keeps one token whatever its scope, sends basic credentials to the realm of a *Basic* challenge as
if it were a URL, knows no identity tokens, waits for a credential helper for ever, retries with
sleeps, and takes minutes over a challenge that is long enough.
"""

from __future__ import annotations

import base64
import json
import os
import re
import subprocess
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

from oras.auth.token import TokenAuth
from oras.auth.utils import get_basic_auth

from edgectl.errors import ConfigError, RegistryDeniedError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from edgectl.oci.access import Access

    TokenRequest = Callable[[str, Mapping[str, str], Mapping[str, str] | None, str | None], bytes]
    """Ask a URL for a token: with a query, or with a form that is posted; and with an
    `Authorization`, if any. Raises the errors of the family."""

_DOCKER_HUB = "docker.io"
_DOCKER_HUB_KEY = "https://index.docker.io/v1/"
_IDENTITY = "<token>"
"""The user name by which a credential helper says that its secret is an identity token."""
_HELPER_SECONDS = 60.0
"""A credential helper may ask a person for a passphrase; a device has nobody to answer."""
_MAX_CHALLENGE = 8192
_CHALLENGE = re.compile(r"(?:^|,)\s*(basic|bearer)(?=[\s,]|$)", re.IGNORECASE)
_PARAMETER = re.compile(r'(?<![\w-])([\w-]++)\s*=\s*(?:"((?:[^"\\]|\\.)*+)"|([^\s",]++))')
_MALFORMED = (OSError, ValueError, KeyError, TypeError, AttributeError)
_TOKEN = re.compile(r"[A-Za-z0-9._~+/-]+=*")
"""What may be sent as a bearer token (RFC 6750, 2.1)."""


class _Credentials(NamedTuple):
    """What a registry, or its token service, knows a user by: one of both."""

    basic: str | None = None
    """`base64(user:password)`."""
    identity_token: str | None = None
    """What `docker login` was given in place of a password: for the token service alone."""


class Authenticator:
    """The credentials for one registry host, and the tokens got with them."""

    def __init__(self, host: str, access: Access, request: TokenRequest) -> None:
        self._host = host
        self._access = access
        self._request = request
        self._known = _Credentials()
        self._found = False
        self._use_basic = False
        self._tokens: dict[tuple[str, bool], str] = {}
        self._lock = threading.Lock()

    def header(self, repository: str, *, write: bool) -> str | None:
        """The `Authorization` to send, as far as one is known to be wanted."""
        if self._use_basic:
            return f"Basic {self._credentials().basic}"
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
                self._use_basic = self._credentials().basic is not None
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
        """Ask the realm for a token (distribution's token authentication specification; of an
        identity token, its OAuth 2 form)."""
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
        basic, identity_token = self._credentials()
        form = None
        if identity_token is not None:
            form = {
                "grant_type": "refresh_token",
                "refresh_token": identity_token,
                "client_id": "edgectl",
                **query,
            }
        authorization = None if basic is None else f"Basic {basic}"
        try:
            answer = json.loads(self._request(realm, {} if form else query, form, authorization))
            token = answer.get("token") or answer.get("access_token")
        except (ValueError, AttributeError):
            return None
        return token if isinstance(token, str) and _TOKEN.fullmatch(token) else None

    def _credentials(self) -> _Credentials:
        """Looked for once."""
        if not self._found:
            self._known = self._find()
            self._found = True
        return self._known

    def _find(self) -> _Credentials:
        access = self._access
        if access.username is not None:
            return _Credentials(str(get_basic_auth(access.username, access.password or "")))
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
    """Docker's config.json: inline credentials, identity tokens, helpers, stores."""

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
        except _MALFORMED as error:
            raise ConfigError(
                f"{path} is not a Docker config.json: {type(error).__name__}",
                hint="it holds credentials under `auths`",
            ) from error

    def find(self, host: str) -> _Credentials:
        """What is kept for a host, if anything; raises ConfigError if that is not usable."""
        keys = [host, f"https://{host}", f"http://{host}"]
        if host == _DOCKER_HUB:
            keys.append(_DOCKER_HUB_KEY)
        try:
            for key in keys:
                if token := self._auth_config.get("auths", {}).get(key, {}).get("identitytoken"):
                    return _identity(token)
                if self._load_auth(key):
                    return _parsed(str(self._basic_auth))
        except (*_MALFORMED, subprocess.SubprocessError) as error:
            # Not from the error: it can hold what is to stay secret.
            raise ConfigError(
                f"the credentials that Docker keeps for {host} are not usable "
                f"({type(error).__name__})",
                hint=f"log in again with `docker login {host}`, or check its credential helper",
            ) from None
        return _Credentials()

    def _get_auth_from_creds_store(self, suffix: str, hostname: str) -> str | None:
        """As oras-py's, but a helper that hangs is ended: raises subprocess.TimeoutExpired."""
        try:
            with subprocess.Popen(
                [f"docker-credential-{suffix}", "get"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            ) as helper:
                try:
                    answer, _ = helper.communicate(hostname.encode(), timeout=_HELPER_SECONDS)
                except BaseException:
                    helper.kill()
                    raise
        except FileNotFoundError:
            return None
        if helper.returncode != 0:  # that is how a helper says that it has nothing for the host
            return None
        found = json.loads(answer)
        return str(get_basic_auth(found["Username"], found["Secret"]))


def _parsed(encoded: str) -> _Credentials:
    """Credentials as Docker keeps them; raises ValueError if that is not base64 of
    `user:password`."""
    user, colon, secret = base64.b64decode(encoded, validate=True).partition(b":")
    if not colon:
        raise ValueError("no user and password")
    if user.decode() == _IDENTITY:
        return _identity(secret.decode())
    return _Credentials(encoded)


def _identity(token: Any) -> _Credentials:
    if not isinstance(token, str) or not token:
        raise TypeError("an identity token is a text")
    return _Credentials(identity_token=token)
