"""One HTTP client per registry: authentication, timeouts, redirects, bounded reads, errors."""

from __future__ import annotations

import http.client
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from http.cookiejar import DefaultCookiePolicy
from typing import TYPE_CHECKING, Any
from urllib.parse import urldefrag, urlencode, urljoin, urlsplit

import requests
import requests.adapters
import urllib3.exceptions

import edgectl
from edgectl.errors import IntegrityError, RegistryDeniedError, RegistryUnavailableError
from edgectl.oci.auth import Authenticator
from edgectl.oci.http_errors import (
    MAX_ERROR_BYTES,
    is_cut,
    parse_number,
    silence_error,
    status_error,
)
from edgectl.oci.wire import bound

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from typing import BinaryIO

    from edgectl.oci.access import Access

    Body = bytes | BinaryIO
    OpenBody = Callable[[], Body] | None
    """Opens what is sent, once per attempt; None if nothing is."""

_MAX_TOKEN_BYTES = 1 << 20
_MAX_REDIRECTS = 8
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_NO_SUCH_LOGIN = frozenset({404, 405, 501})
_FORM = {"Content-Type": "application/x-www-form-urlencoded"}
_PORTS = {"http": 80, "https": 443}
_SEND_BYTES = 1 << 18
_COMMIT_SECONDS = 600.0
"""Registries check and move an upload before they answer; that takes time for gigabytes."""
_SILENCES = (
    requests.exceptions.RequestException,
    urllib3.exceptions.HTTPError,
    http.client.HTTPException,
    OSError,
)


@dataclass(frozen=True, slots=True)
class _Request:
    """One request, as often as it has to be sent."""

    method: str
    url: str
    doing: str
    headers: Mapping[str, str]
    query: Mapping[str, str] | None = None
    body: OpenBody = None
    is_login: bool = False
    """Whether the body is a secret for its addressee, who changes nothing and answers at once."""

    @property
    def writes(self) -> bool:
        return self.method not in {"GET", "HEAD"} and not self.is_login


class Client:
    """Requests to one registry host."""

    def __init__(self, host: str, access: Access) -> None:
        self.host = host
        self._access = access
        self._base = f"{'http' if access.insecure else 'https'}://{host}"
        self._session = _Session()
        self._authenticator = Authenticator(host, access, self._get_token)

    def url(self, path: str) -> str:
        """The absolute URL of a path, or of a `Location` that the registry gave.

        Raises RegistryUnavailableError if that is none.
        """
        return _joined(self._base, path, f"registry {self.host}")

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
        body: OpenBody = None,
        accept: frozenset[int] = frozenset(),
    ) -> Iterator[Response]:
        """Send a request, authenticate if asked to, and give the response before its body.

        Whatever is no success raises, except the statuses in `accept`.
        """
        request = _Request(method, url, doing, headers or {}, query, body)
        with self._authenticated(request, repository) as response:
            if response.status >= 300 and response.status not in accept:
                raise self._error(response, doing)
            yield response

    @contextmanager
    def _authenticated(self, request: _Request, repository: str) -> Iterator[Response]:
        """Send, and once more if the registry itself asks for credentials: it alone gets any."""
        registry = _origin(self._base)
        ours = _origin(request.url) == registry

        def known() -> str | None:
            return self._authenticator.header(repository, write=request.writes) if ours else None

        authorization = known()
        response = self._followed(request, authorization)
        try:
            challenge = response.headers.get("WWW-Authenticate", "")
            if (
                response.status == 401
                and ours
                and response.origin == registry
                and self._authenticator.answer(
                    repository, challenge, authorization, write=request.writes
                )
            ):
                response.finish()
                response = self._followed(request, known())
            yield response
        finally:
            response.finish()

    def _followed(self, request: _Request, authorization: str | None) -> Response:
        """Send, and go where it is redirected to; credentials stay behind, and TLS stays."""
        where = f"{request.doing} at registry {self.host}"
        for _ in range(_MAX_REDIRECTS + 1):
            headers = {**request.headers}
            if authorization is not None:
                headers["Authorization"] = authorization
            response = self._sent(replace(request, headers=headers), where)
            location = response.redirect
            if location is None:
                return response
            response.finish()
            url = self._redirected(request, response.status, location, where)
            if _origin(url) != _origin(request.url):
                authorization = None
                where = f"{where}, redirected to {urlsplit(url).hostname}"
            request = replace(request, url=url, query=None)
        raise RegistryUnavailableError(
            f"{where}: redirected more than {_MAX_REDIRECTS} times",
            hint="is there a registry at that address?",
        )

    def _redirected(self, request: _Request, status: int, location: str, where: str) -> str:
        """The URL that a redirect leads to, if that would be the same request."""
        url = _joined(request.url, location, where)
        scheme, host, port = _origin(url)
        if scheme != "https" and not self._access.insecure:
            raise RegistryUnavailableError(
                f"{where}: redirected from TLS to {scheme}",
                hint="a proxy before the registry has to keep to https",
            )
        if request.writes and status not in {307, 308}:
            raise RegistryDeniedError(
                f"{where}: redirected to {host}:{port} ({status}), which takes reads alone",
                hint="give the registry by the address that it redirects to",
            )
        return url

    def _sent(self, request: _Request, where: str) -> Response:
        """Send once; raises the error of a request that gets no answer.

        A read whose connection ends without one is sent again: the server may have closed a
        connection that was idle just when this used it.
        """
        try:
            try:
                response = self._exchanged(request)
            except requests.exceptions.ConnectionError as error:
                if request.writes or not is_cut(error):
                    raise
                response = self._exchanged(request)
        except _SILENCES as error:
            raise silence_error(error, where) from error
        return Response(response, request.url, where, self._access.slow_after)

    def _exchanged(self, request: _Request) -> requests.Response:
        timeout = self._access.timeout
        data = None if request.body is None else request.body()
        moves = data is not None and not request.is_login
        return self._session.request(
            request.method,
            request.url,
            params=request.query,
            data=data,
            headers=request.headers,
            stream=True,
            allow_redirects=False,
            timeout=(timeout, max(timeout, _COMMIT_SECONDS) if moves else timeout),
            verify=True if self._access.ca_file is None else str(self._access.ca_file),
        )

    def _get_token(
        self,
        url: str,
        query: Mapping[str, str],
        form: Mapping[str, str] | None,
        authorization: str | None,
    ) -> bytes:
        doing = "getting a token"
        if form is None:
            response = self._followed(_Request("GET", url, doing, {}, query), authorization)
        else:
            response = self._login(url, form, f"{doing} at registry {self.host}")
        try:
            if response.status >= 300:
                raise self._error(response, doing)
            return response.read_all(_MAX_TOKEN_BYTES)
        finally:
            response.finish()

    def _login(self, url: str, form: Mapping[str, str], where: str) -> Response:
        """Post a secret to the token service, and to nobody that it redirects to."""
        body = urlencode(form).encode()
        request = _Request("POST", url, where, _FORM, body=lambda: body, is_login=True)
        response = self._sent(request, where)
        if response.redirect is None and response.status not in _NO_SUCH_LOGIN:
            return response
        response.finish()
        raise RegistryDeniedError(
            f"{where}: its token service takes no identity tokens ({response.status})",
            hint="log in with a user name and a password, or an access token as password",
        )

    def _error(self, response: Response, doing: str) -> Exception:
        where = f"{doing} at registry {self.host}"
        return status_error(response.status, response.headers, response.error_body, where)


class Response:
    """A response whose body is read in bounded pieces."""

    def __init__(
        self, response: requests.Response, url: str, doing: str, slow_after: float
    ) -> None:
        self._response = response
        self._doing = doing
        self.origin = _origin(url)
        """Who answered."""
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
    def redirect(self) -> str | None:
        """Where to ask instead, as it was given."""
        if self.status not in _REDIRECTS or "Location" not in self.headers:
            return None
        # http.client reads headers as Latin-1, whatever they are.
        return self.headers["Location"].encode("latin-1").decode(errors="replace")

    @property
    def next_link(self) -> str | None:
        """The `Link` to the next page."""
        return self._response.links.get("next", {}).get("url")

    @property
    def length(self) -> int | None:
        """`Content-Length`; None if absent or not a number."""
        return parse_number(self.headers.get("Content-Length"))

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
    """A session that takes credentials from nowhere but the request, and follows nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
        self.headers.update(
            {"User-Agent": f"edgectl/{edgectl.__version__}", "Accept-Encoding": "identity"}
        )
        self.auth = _keep_headers
        for scheme in ("http://", "https://"):
            self.mount(scheme, _Adapter(pool_maxsize=16))

    def get_redirect_target(self, resp: requests.Response) -> str | None:
        """None: requests would read the body of a redirect whole, however long it is."""
        return None


def _keep_headers(request: requests.PreparedRequest) -> requests.PreparedRequest:
    """An auth hook that does nothing: without one, requests would look into a .netrc."""
    return request


class _Adapter(requests.adapters.HTTPAdapter):
    """Connections that send bodies in larger pieces than 8 KiB, and read within bounds."""

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, blocksize=_SEND_BYTES, **kwargs)
        bound(self.poolmanager)

    def proxy_manager_for(self, proxy: str, **proxy_kwargs: Any) -> Any:
        manager = super().proxy_manager_for(proxy, **proxy_kwargs)
        bound(manager)
        return manager


def _joined(base: str, location: str, where: str) -> str:
    """The absolute URL of what a server gave; raises RegistryUnavailableError if it is none."""
    try:
        url = urldefrag(urljoin(base, location)).url
        scheme, host, _ = _origin(url)
    except ValueError:
        scheme = host = ""
    if scheme not in _PORTS or not host or not url.isprintable():
        raise RegistryUnavailableError(
            f"{where}: it names an address that is none: {location[:200]!r}",
            hint="is it an OCI registry?",
        )
    return url


def _origin(url: str) -> tuple[str, str, int]:
    """Scheme, host and port; raises ValueError if they are malformed."""
    parts = urlsplit(url)
    port = parts.port if parts.port is not None else _PORTS.get(parts.scheme, 0)
    return parts.scheme, parts.hostname or "", port
