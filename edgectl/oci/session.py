"""One HTTP client per registry: authentication, timeouts, redirects, bounded reads, errors."""

from __future__ import annotations

import http.client
import time
from contextlib import contextmanager, suppress
from http.cookiejar import DefaultCookiePolicy
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin, urlsplit

import requests
import requests.adapters
import urllib3.exceptions

import edgectl
from edgectl.errors import IntegrityError, RegistryUnavailableError
from edgectl.oci.auth import Authenticator
from edgectl.oci.http_errors import MAX_ERROR_BYTES, silence_error, status_error

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from typing import BinaryIO

    from edgectl.oci.access import Access

    Body = bytes | BinaryIO

_MAX_TOKEN_BYTES = 1 << 20
_SEND_BYTES = 1 << 18
_COMMIT_SECONDS = 600.0
"""Registries check and move an upload before they answer; that takes time for gigabytes."""
_SILENCES = (
    requests.exceptions.RequestException,
    urllib3.exceptions.HTTPError,
    http.client.HTTPException,
    OSError,
)


class Client:
    """Requests to one registry host."""

    def __init__(self, host: str, access: Access) -> None:
        self.host = host
        self._access = access
        self._base = f"{'http' if access.insecure else 'https'}://{host}"
        self._session = _Session(insecure=access.insecure)
        self._authenticator = Authenticator(host, access, self._get_token)

    def url(self, path: str) -> str:
        """The absolute URL of a path, or of a `Location` that the registry gave."""
        return urljoin(self._base, path)

    @contextmanager
    def request(
        self,
        method: str,
        url: str,
        *,
        repository: str,
        doing: str,
        headers: Mapping[str, str] | None = None,
        query: Mapping[str, str] | None = None,
        body: Callable[[], Body] | None = None,
        accept: frozenset[int] = frozenset(),
    ) -> Iterator[Response]:
        """Send a request, authenticate if asked to, and give the response before its body.

        `body` opens what is sent, once per attempt. Statuses of 400 and above raise, except those
        in `accept`.
        """
        write = method not in {"GET", "HEAD"}
        with self._send(method, url, repository, doing, headers, query, body, write) as response:
            if response.status >= 400 and response.status not in accept:
                raise self._error(response, doing)
            yield response

    @contextmanager
    def _send(
        self,
        method: str,
        url: str,
        repository: str,
        doing: str,
        headers: Mapping[str, str] | None,
        query: Mapping[str, str] | None,
        body: Callable[[], Body] | None,
        write: bool,
    ) -> Iterator[Response]:
        ours = _origin(url) == _origin(self._base)

        def attempt(authorization: str | None) -> Response:
            sent = {**(headers or {})}
            if authorization is not None:
                sent["Authorization"] = authorization
            data = None if body is None else body()
            return self._raw(method, url, doing, sent, query, data)

        authorization = self._authenticator.header(repository, write=write) if ours else None
        response = attempt(authorization)
        try:
            challenge = response.headers.get("WWW-Authenticate", "")
            if (
                response.status == 401
                and ours
                and self._authenticator.answer(repository, challenge, authorization, write=write)
            ):
                response.finish()
                response = attempt(self._authenticator.header(repository, write=write))
            yield response
        finally:
            response.finish()

    def _raw(
        self,
        method: str,
        url: str,
        doing: str,
        headers: Mapping[str, str],
        query: Mapping[str, str] | None,
        data: Body | None,
    ) -> Response:
        timeout = self._access.timeout
        try:
            response = self._session.request(
                method,
                url,
                params=query,
                data=data,
                headers=headers,
                stream=True,
                timeout=(timeout, timeout if data is None else max(timeout, _COMMIT_SECONDS)),
                verify=True if self._access.ca_file is None else str(self._access.ca_file),
            )
        except _SILENCES as error:
            raise silence_error(error, f"{doing} at registry {self.host}") from error
        return Response(response, f"{doing} at registry {self.host}", self._access.slow_after)

    def _get_token(self, url: str, query: Mapping[str, str], headers: Mapping[str, str]) -> bytes:
        doing = "getting a token"
        response = self._raw("GET", url, doing, headers, query, None)
        try:
            if response.status >= 400:
                raise self._error(response, doing)
            return response.read_all(_MAX_TOKEN_BYTES)
        finally:
            response.finish()

    def _error(self, response: Response, doing: str) -> Exception:
        where = f"{doing} at registry {self.host}"
        return status_error(response.status, response.headers, response.error_body, where)


class Response:
    """A response whose body is read in bounded pieces."""

    def __init__(self, response: requests.Response, doing: str, slow_after: float) -> None:
        self._response = response
        self._doing = doing
        self._pace = _Pace(slow_after, doing)
        self.error_body = self.read_some(MAX_ERROR_BYTES) if self.status >= 400 else b""
        """What a refusal says, as far as it is not too long."""

    @property
    def status(self) -> int:
        """The HTTP status."""
        return self._response.status_code

    @property
    def headers(self) -> Mapping[str, str]:
        """The headers; names in any case."""
        return self._response.headers

    @property
    def next_link(self) -> str | None:
        """The `Link` to the next page."""
        return self._response.links.get("next", {}).get("url")

    @property
    def length(self) -> int | None:
        """`Content-Length`; None if absent or not a number."""
        value = self.headers.get("Content-Length", "")
        return int(value) if value.isdigit() else None

    def read(self, count: int) -> bytes:
        """Read at most `count` bytes as they come, none at the end.

        Raises RegistryUnavailableError if they stop coming, or come too slowly.
        """
        try:
            data: bytes = self._response.raw.read1(count, decode_content=False)
        except _SILENCES as error:
            raise silence_error(error, self._doing) from error
        self._pace.count(len(data))
        return data

    def read_all(self, limit: int) -> bytes:
        """Read the whole body; IntegrityError if it has more than `limit` bytes."""
        data = self.read_some(limit + 1)
        if len(data) > limit:
            raise IntegrityError(f"{self._doing}: the answer is larger than {limit} bytes")
        return data

    def read_some(self, limit: int) -> bytes:
        """Read the body, at most `limit` bytes of it."""
        data = bytearray()
        while len(data) < limit and (chunk := self.read(min(limit - len(data), 1 << 16))):
            data += chunk
        return bytes(data)

    def finish(self) -> None:
        """Give the connection back for the next request, or close it if something is unread."""
        raw = self._response.raw
        if raw.length_remaining == 0:
            with suppress(*_SILENCES):  # only the connection is lost: what mattered was read
                raw.read(1, decode_content=False)
        self._response.close()


class _Pace:
    """Gives a transfer up that brings under 100 B/s over a whole window (TUF's slow retrieval)."""

    LEAST_BYTES_PER_SECOND = 100

    def __init__(self, window: float, doing: str) -> None:
        self._window = window
        self._doing = doing
        self._start = time.monotonic()
        self._bytes = 0

    def count(self, size: int) -> None:
        """Note that bytes came; raises RegistryUnavailableError at the end of a slow window."""
        self._bytes += size
        elapsed = time.monotonic() - self._start
        if elapsed < self._window:
            return
        if self._bytes < self.LEAST_BYTES_PER_SECOND * elapsed:
            raise RegistryUnavailableError(
                f"{self._doing}: only {self._bytes} bytes in {elapsed:.0f} s",
                hint="try again later",
            )
        self._start, self._bytes = time.monotonic(), 0


class _Session(requests.Session):
    """A session that takes credentials from nowhere but the request, and keeps to TLS."""

    def __init__(self, *, insecure: bool) -> None:
        super().__init__()
        self._insecure = insecure
        self.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
        self.headers.update(
            {"User-Agent": f"edgectl/{edgectl.__version__}", "Accept-Encoding": "identity"}
        )
        self.auth = _keep_headers
        for scheme in ("http://", "https://"):
            self.mount(scheme, _Adapter(pool_maxsize=16))

    def get_redirect_target(self, resp: requests.Response) -> str | None:
        """Refuse to be sent from TLS to plain HTTP."""
        target = super().get_redirect_target(resp)
        if target is not None and not self._insecure:
            scheme = urlsplit(urljoin(resp.url, target)).scheme
            if scheme != "https":
                raise requests.exceptions.InvalidSchema(f"redirected from TLS to {scheme}")
        return target

    def rebuild_auth(
        self, prepared_request: requests.PreparedRequest, response: requests.Response
    ) -> None:
        """Drop credentials on the way to another host; never take any from a .netrc."""
        before = response.request.url or ""
        if _origin(before) != _origin(prepared_request.url or ""):
            prepared_request.headers.pop("Authorization", None)


def _keep_headers(request: requests.PreparedRequest) -> requests.PreparedRequest:
    """An auth hook that does nothing: without one, requests would look into a .netrc."""
    return request


class _Adapter(requests.adapters.HTTPAdapter):
    """Sends bodies in larger pieces than http.client's 8 KiB."""

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, blocksize=_SEND_BYTES, **kwargs)


def _origin(url: str) -> tuple[str, str]:
    parts = urlsplit(url)
    return parts.scheme, parts.netloc
