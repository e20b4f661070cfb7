"""Answer a registry's `WWW-Authenticate`: basic credentials or bearer tokens.

oras-py, which finds the credentials, is not asked for this: it keeps one token whatever its scope,
sends basic credentials to the realm of a *Basic* challenge as if it were a URL, retries with
sleeps, and takes minutes over a challenge that is long enough.
"""

from __future__ import annotations

import json
import re
import threading
import time
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from edgectl.errors import ConfigError, RegistryDeniedError
from edgectl.oci.credentials import HELPER_SECONDS, Credentials, find_credentials

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from edgectl.oci.access import Access

    TokenRequest = Callable[[str, Mapping[str, str], Mapping[str, str] | None, str | None], bytes]
    """Ask a URL for a token: with a query, or with a form that is posted; and with an
    `Authorization`, if any. Raises the errors of the family."""

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
        self._credentials: Credentials | None = None
        self._failure: tuple[float, ConfigError] | None = None
        self._basic: str | None = None
        self._tokens: dict[tuple[str, bool], str] = {}
        self._lock = threading.Lock()

    def header(self, repository: str, *, write: bool) -> str | None:
        """The `Authorization` to send, as far as one is known to be wanted."""
        if self._basic is not None:
            return self._basic
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
            if scheme not in {"basic", "bearer"}:
                return False
            if self.header(repository, write=write) not in {None, sent}:
                return True  # another thread got something better meanwhile
            if sent is not None:  # credentials can have changed: some clouds' last for hours
                self._credentials = None
            if scheme == "basic":
                basic = self._found().basic
                self._basic = None if basic is None else f"Basic {basic}"
                return self._basic not in {None, sent}
            self._basic = None
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
        basic, identity_token = self._found()
        form = authorization = None
        if identity_token is not None:
            form = {
                "grant_type": "refresh_token",
                "refresh_token": identity_token,
                "client_id": "edgectl",
                **query,
            }
        elif basic is not None:
            authorization = f"Basic {basic}"
        try:
            answer = json.loads(self._request(realm, {} if form else query, form, authorization))
            token = answer.get("token") or answer.get("access_token")
        except RegistryDeniedError:
            self._credentials = None
            raise
        except (ValueError, AttributeError, RecursionError):
            return None
        return token if isinstance(token, str) and _TOKEN.fullmatch(token) else None

    def _found(self) -> Credentials:
        """The credentials, looked for once until they are refused.

        Raises ConfigError; for a while without looking again, because others wait for the answer.
        """
        if self._failure is not None and time.monotonic() < self._failure[0]:
            raise self._failure[1]
        if self._credentials is None:
            try:
                self._credentials = self._find()
            except ConfigError as error:
                self._failure = (time.monotonic() + HELPER_SECONDS, error)
                raise
        return self._credentials

    def _find(self) -> Credentials:
        access = self._access
        if access.username is not None:
            return Credentials.of(access.username, access.password or "")
        return find_credentials(self._host, access.docker_config)


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
