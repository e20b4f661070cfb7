"""What an HTTP registry's refusals and silences mean in the error family.

OCI distribution-spec v1.1, "Error Codes", and what registries answer in practice.
"""

from __future__ import annotations

import json
import re
import socket
import ssl
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http.client import IncompleteRead, RemoteDisconnected, responses
from typing import TYPE_CHECKING, Any

import requests
import urllib3.exceptions

from edgectl.errors import (
    ConfigError,
    EdgectlError,
    IntegrityError,
    NotFoundError,
    RegistryDeniedError,
    RegistryUnavailableError,
    StorageFullError,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_ERROR_BYTES = 64 << 10
"""How much of an error response is read."""

_FULL_ERRNOS = {28, 122}  # ENOSPC, EDQUOT of the registry's Linux
_DENIED_ERRNOS = {1, 13, 30}  # EPERM, EACCES, EROFS
_NUMBER = re.compile(r"[0-9]{1,18}")
_NO_BUNDLE = "Could not find a suitable TLS CA certificate bundle"
"""What requests says of a file that is not there."""
_LOGIN_HINT = "give --username and its right password, or log in with `docker login`"


def status_error(status: int, headers: Mapping[str, str], body: bytes, doing: str) -> EdgectlError:
    """The error for a response that is no success; `doing` names the registry and the action."""
    codes, text, errnos = _read_errors(body)
    message = f"{doing}: {text or responses.get(status, 'HTTP')} ({status})"
    if status == 507 or "no space left" in text or errnos & _FULL_ERRNOS:
        return StorageFullError(
            f"{message}: the registry has no space left", hint="free some space on the registry"
        )
    if status == 404 or "MANIFEST_BLOB_UNKNOWN" in codes or "BLOB_UNKNOWN" in codes:
        return NotFoundError(message)
    if codes & {"DIGEST_INVALID", "SIZE_INVALID"}:
        return IntegrityError(message, hint="the upload was changed on its way: try again")
    if status == 405 or "UNSUPPORTED" in codes or errnos & _DENIED_ERRNOS:
        return RegistryDeniedError(
            f"{message}: the registry is read-only, or cannot do this",
            hint="is it in maintenance, or a mirror?",
        )
    if status < 400:
        return RegistryUnavailableError(
            message, hint="is there a registry, and no proxy before it?"
        )
    if status in {401, 403} or "DENIED" in codes:
        return RegistryDeniedError(message, hint=_LOGIN_HINT)
    if status == 429 or status >= 500:
        return RegistryUnavailableError(
            message,
            hint="try again later",
            retry_after=parse_retry_after(headers.get("Retry-After")),
        )
    return RegistryDeniedError(
        message,
        hint="does the registry accept OCI 1.0 artifacts? does it speak TLS, against --insecure?",
    )


def silence_error(error: Exception, doing: str) -> EdgectlError:
    """The error for a request that got no answer, or an answer that stopped."""
    cause = _innermost(error)
    if getattr(cause, "library", "") == "X509" or _NO_BUNDLE in str(cause):
        return ConfigError(
            f"{doing}: the file of trusted certificates holds none, or is not there",
            hint="--ca-file (caFile, REQUESTS_CA_BUNDLE) names a file of PEM certificates",
        )
    reason = str(cause) or type(cause).__name__
    hint = "is the address right, and the registry up?"
    if isinstance(error, requests.exceptions.ProxyError):
        doing = f"{doing}, through a proxy"
        hint = "is the proxy in HTTP_PROXY or HTTPS_PROXY right? NO_PROXY names hosts without one"
    if isinstance(cause, ssl.SSLCertVerificationError):
        reason = f"its certificate is not trusted: {cause.verify_message}"
        hint = "name the CA with --ca-file"
    elif isinstance(cause, ssl.SSLError):
        reason = f"no TLS: {cause.reason or reason}"
        hint = "a registry without TLS needs --insecure"
    elif isinstance(cause, socket.gaierror):
        reason = "its name does not resolve"
    elif isinstance(cause, TimeoutError):
        reason = "no answer in time"
    elif isinstance(cause, RemoteDisconnected):
        reason = "it closed the connection without an answer"
    elif isinstance(cause, IncompleteRead | urllib3.exceptions.IncompleteRead):
        reason, hint = "the connection ended before the answer did", "try again"
    elif isinstance(cause, OSError) and cause.strerror:
        reason = cause.strerror
    return RegistryUnavailableError(f"{doing}: {_printable(reason)}", hint=hint)


def is_cut(error: Exception) -> bool:
    """Whether a connection ended before anything was answered on it."""
    cut = ConnectionResetError | ConnectionAbortedError | BrokenPipeError | ssl.SSLEOFError
    return isinstance(_innermost(error), cut)


def parse_retry_after(value: str | None, now: datetime | None = None) -> float | None:
    """Seconds of a `Retry-After` (RFC 9110, 10.2.3: seconds or a date); None if there is none."""
    if value is None:
        return None
    seconds = parse_number(value.strip())
    if seconds is not None:
        return float(seconds)
    try:
        when = parsedate_to_datetime(value)
    except (ValueError, OverflowError):
        return None
    if when.tzinfo is None:
        when = when.replace(tzinfo=UTC)
    return max(0.0, (when - (now or datetime.now(UTC))).total_seconds())


def parse_number(value: str | None) -> int | None:
    """A number of a header; None if it is none, or no size or time that could be meant."""
    return int(value) if value and _NUMBER.fullmatch(value) else None


def _read_errors(body: bytes) -> tuple[set[str], str, set[int]]:
    """Codes, messages and file system errnos of an error response that may be anything."""
    try:
        errors = json.loads(body)["errors"]
        codes = {str(item.get("code", "")) for item in errors}
        text = _printable("; ".join(_text(item) for item in errors))
        return codes, text, {number for item in errors for number in _errnos(item.get("detail"))}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        text = _printable(body[:200].decode(errors="replace"))
        return set(), "" if text.lstrip().startswith("<") else text, set()


def _printable(text: str) -> str:
    """What may be shown on a terminal of what a registry said."""
    return "".join(character for character in text if character.isprintable())[:500]


def _text(item: dict[str, Any]) -> str:
    """An error's message, and its detail where docker-registry hides the reason there."""
    message, detail = str(item.get("message", "")), item.get("detail")
    return f"{message}: {detail}" if isinstance(detail, str) and detail else message


def _errnos(detail: Any) -> set[int]:
    """Go's `os.PathError` as docker-registry prints it: `{"Enclosed": {"Err": 28, …}}`."""
    if isinstance(detail, list):
        return {number for item in detail for number in _errnos(item)}
    if not isinstance(detail, dict):
        return set()
    found = _errnos(detail.get("Enclosed"))
    return found | {detail["Err"]} if isinstance(detail.get("Err"), int) else found


def _innermost(error: BaseException) -> BaseException:
    """The exception at the bottom, under what requests and urllib3 wrapped around it."""
    seen: set[int] = set()
    while id(error) not in seen:
        seen.add(id(error))
        nested = [
            inner
            for inner in (
                error.__cause__,
                getattr(error, "reason", None),
                *error.args,
                error.__context__,
            )
            if isinstance(inner, BaseException)
        ]
        if not nested:
            break
        error = nested[0]
    return error
