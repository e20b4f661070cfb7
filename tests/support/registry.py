"""A small OCI 1.1 registry in this process, with faults on demand and a log of its requests.

It speaks the distribution-spec over a real socket, so the code under test is the code that runs
in production. Use it as a context manager:

    with Registry() as registry:
        registry.inject(Status(503, retry_after=2), method="GET", path="/blobs/", times=1)
        store = registry.store()
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import secrets
import sys
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import parse_qs, urlsplit

from edgectl.oci.access import Access, open_store
from edgectl.oci.reference import RegistryLocation
from tests.support.faults import Answer, Fault, error, json_answer

if TYPE_CHECKING:
    import socket
    from collections.abc import Mapping

    from edgectl.oci.store import Store

_ROUTE = re.compile(
    r"/v2/(?P<name>.+?)/(?P<what>blobs/uploads|blobs|manifests|tags|referrers)(?:/(?P<rest>.*))?"
)
_OCI_INDEX = "application/vnd.oci.image.index.v1+json"


@dataclass(frozen=True)
class LoggedRequest:
    """One request, and the status of the answer; 0 if there was none."""

    method: str
    path: str
    headers: Mapping[str, str]
    status: int


@dataclass
class _Rule:
    fault: Fault
    method: str | None
    path: str
    times: int | None


@dataclass
class _Repository:
    blobs: dict[str, bytes] = field(default_factory=dict)
    manifests: dict[str, tuple[str, bytes]] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)


def _user(headers: Mapping[str, str]) -> tuple[str, str]:
    """User name and password of an `Authorization`, empty if there is none."""
    encoded = headers.get("Authorization", "").removeprefix("Basic ")
    user, _, password = base64.b64decode(encoded).decode().partition(":")
    return user, password


class Registry:
    """The registry; its contents are plain attributes for tests to look at and tamper with."""

    def __init__(
        self,
        *,
        referrers_api: bool = True,
        credentials: tuple[str, str] | None = None,
        identity_token: str | None = None,
        basic: bool = False,
        read_only: bool = False,
        page_size: int = 1000,
    ) -> None:
        """With `credentials` (user name, password) every request needs a bearer token for them, or
        for `identity_token`; with `basic`, it needs them themselves."""
        self.referrers_api = referrers_api
        self.credentials = credentials
        self.identity_token = identity_token
        self.basic = basic
        self.read_only = read_only
        self.page_size = page_size
        self.repositories: dict[str, _Repository] = {}
        self.requests: list[LoggedRequest] = []
        self.connections = 0
        self._tokens: dict[str, set[str]] = {}
        self._uploads: dict[str, bytearray] = {}
        self._rules: list[_Rule] = []
        self._lock = threading.RLock()
        self._server = _Server(self)

    def __enter__(self) -> Self:
        """Start to answer."""
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
        )
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop, and raise AssertionError if a request crashed the registry."""
        self._server.stop()
        self._thread.join()
        if self._server.crashes:
            raise AssertionError("the test registry crashed") from self._server.crashes[0]

    @property
    def host(self) -> str:
        """`127.0.0.1:<port>`."""
        return f"127.0.0.1:{self._server.server_address[1]}"

    def location(self, prefix: str = "") -> RegistryLocation:
        """The registry setting that names this registry."""
        return RegistryLocation(self.host, prefix)

    def store(self, prefix: str = "", access: Access | None = None) -> Store:
        """A production store on this registry; plain HTTP unless `access` says otherwise."""
        return open_store(self.location(prefix), access or Access(insecure=True))

    def inject(
        self,
        fault: Fault,
        *,
        method: str | None = None,
        path: str = "",
        times: int | None = None,
    ) -> None:
        """Let requests of a method (None: any) whose path contains `path` fail so many times."""
        with self._lock:
            self._rules.append(_Rule(fault, method, path, times))

    def heal(self) -> None:
        """Forget every fault."""
        with self._lock:
            self._rules.clear()

    def expire_tokens(self) -> None:
        """Refuse every token that was given out."""
        with self._lock:
            self._tokens.clear()

    def tokens(self) -> list[str]:
        """Every token that is valid now."""
        with self._lock:
            return list(self._tokens)

    def count(self, method: str | None = None, path: str = "") -> int:
        """How many requests of a method had a path that contains `path`."""
        with self._lock:
            return sum(1 for r in self.requests if method in (None, r.method) and path in r.path)

    def blob(self, digest: object) -> tuple[dict[str, bytes], str]:
        """The repository's blobs that hold a digest, and its key there: for tampering."""
        for repository in self.repositories.values():
            if str(digest) in repository.blobs:
                return repository.blobs, str(digest)
        raise KeyError(str(digest))

    def fault_for(self, method: str, path: str) -> Fault | None:
        """The fault that this request meets."""
        with self._lock:
            for rule in self._rules:
                if rule.method in (None, method) and rule.path in path and rule.times != 0:
                    if rule.times is not None:
                        rule.times -= 1
                    return rule.fault
        return None

    def log(self, request: LoggedRequest) -> None:
        """Remember a request."""
        with self._lock:
            self.requests.append(request)

    def answer(self, method: str, target: str, headers: Mapping[str, str], body: bytes) -> Answer:
        """Answer one request."""
        parts = urlsplit(target)
        query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
        if parts.path == "/token":
            return self._token(method, query, headers, body)
        match = _ROUTE.fullmatch(parts.path)
        name = match["name"] if match else ""
        if self.credentials is not None:
            refused = self._refused(method, name, headers)
            if refused is not None:
                return refused
        if parts.path in {"/v2", "/v2/"}:
            return Answer(200)
        if match is None:
            return error(404, "NOT_FOUND", "no such route")
        if self.read_only and method not in {"GET", "HEAD"}:
            return error(405, "UNSUPPORTED", "The operation is unsupported.")
        routes = {
            "blobs": self._blob,
            "blobs/uploads": self._upload,
            "manifests": self._manifest,
            "tags": self._tags,
            "referrers": self._referrers,
        }
        with self._lock:
            return routes[match["what"]](method, name, match["rest"] or "", query, headers, body)

    def _refused(self, method: str, name: str, headers: Mapping[str, str]) -> Answer | None:
        if self.basic:
            if _user(headers) == self.credentials:
                return None
            wants = {"WWW-Authenticate": 'Basic realm="registry"'}
            return error(401, "UNAUTHORIZED", "authentication required", wants)
        wanted = f"repository:{name}:" + ("pull" if method in {"GET", "HEAD"} else "pull,push")
        token = headers.get("Authorization", "").removeprefix("Bearer ")
        if not name and token in self._tokens:
            return None
        if wanted in self._tokens.get(token, ()):
            return None
        scope = f',scope="{wanted}"' if name else ""
        challenge = f'Bearer realm="http://{self.host}/token",service="registry"{scope}'
        return error(
            401, "UNAUTHORIZED", "authentication required", {"WWW-Authenticate": challenge}
        )

    def _token(
        self, method: str, query: Mapping[str, str], headers: Mapping[str, str], body: bytes
    ) -> Answer:
        """distribution's token authentication; a POST is its OAuth 2 form."""
        if method == "POST":
            query = {name: values[-1] for name, values in parse_qs(body.decode()).items()}
            form = headers.get("Content-Type") == "application/x-www-form-urlencoded"
            if not form or query.get("grant_type") != "refresh_token" or "client_id" not in query:
                return error(400, "UNSUPPORTED", "not an OAuth 2 refresh")
            if self.identity_token is None or query["refresh_token"] != self.identity_token:
                return error(401, "UNAUTHORIZED", "wrong identity token")
        elif _user(headers) != self.credentials:
            return error(401, "UNAUTHORIZED", "wrong user name or password")
        token = secrets.token_hex(16)
        scope = query.get("scope", "")
        granted = {scope}
        if scope.endswith(":pull,push"):
            granted.add(scope.removesuffix(",push"))
        with self._lock:
            self._tokens[token] = granted
        name = "access_token" if method == "POST" else "token"
        return json_answer(200, {name: token, "expires_in": 300})

    def _blob(self, method: str, name: str, rest: str, *context: Any) -> Answer:
        _, headers, _ = context
        blobs = self._repository(name).blobs
        if rest not in blobs:
            return error(404, "BLOB_UNKNOWN", "blob unknown to registry")
        if method == "DELETE":
            del blobs[rest]
            return Answer(202)
        data = blobs[rest]
        common = {"Docker-Content-Digest": rest, "Content-Type": "application/octet-stream"}
        requested = re.fullmatch(r"bytes=(\d+)-(\d*)", headers.get("Range") or "")
        if requested is None:
            return Answer(200, common, data)
        start = int(requested[1])
        end = min(int(requested[2] or len(data)), len(data) - 1)
        if start >= len(data):
            return Answer(416, {"Content-Range": f"bytes */{len(data)}"})
        content_range = {"Content-Range": f"bytes {start}-{end}/{len(data)}"}
        return Answer(206, {**common, **content_range}, data[start : end + 1])

    def _upload(self, method: str, name: str, rest: str, *context: Any) -> Answer:
        query, _, body = context
        if method == "POST":
            return self._start_upload(name, query)
        if rest not in self._uploads:
            return error(404, "BLOB_UPLOAD_UNKNOWN", "no such upload")
        self._uploads[rest] += body
        location = {"Location": f"/v2/{name}/blobs/uploads/{rest}"}
        if method == "PATCH":
            return Answer(202, {**location, "Range": f"0-{len(self._uploads[rest]) - 1}"})
        data = bytes(self._uploads.pop(rest))
        if f"sha256:{hashlib.sha256(data).hexdigest()}" != query.get("digest"):
            return error(400, "DIGEST_INVALID", "provided digest did not match uploaded content")
        self._repository(name).blobs[query["digest"]] = data
        return Answer(201, {"Location": f"/v2/{name}/blobs/{query['digest']}"})

    def _start_upload(self, name: str, query: Mapping[str, str]) -> Answer:
        mount = query.get("mount", "")
        source = self.repositories.get(query.get("from", ""))
        if source is not None and mount in source.blobs:
            self._repository(name).blobs[mount] = source.blobs[mount]
            return Answer(201, {"Location": f"/v2/{name}/blobs/{mount}"})
        session = secrets.token_hex(8)
        self._uploads[session] = bytearray()
        return Answer(202, {"Location": f"/v2/{name}/blobs/uploads/{session}"})

    def _manifest(self, method: str, name: str, rest: str, *context: Any) -> Answer:
        _, headers, body = context
        repository = self._repository(name)
        if method == "PUT":
            return self._put_manifest(repository, name, rest, headers, body)
        digest = repository.tags.get(rest, rest)
        if digest not in repository.manifests:
            return error(404, "MANIFEST_UNKNOWN", "manifest unknown")
        media_type, data = repository.manifests[digest]
        if method == "DELETE":
            if rest in repository.tags:
                del repository.tags[rest]
            else:
                del repository.manifests[digest]
                repository.tags = {t: d for t, d in repository.tags.items() if d != digest}
            return Answer(202)
        return Answer(200, {"Content-Type": media_type, "Docker-Content-Digest": digest}, data)

    def _put_manifest(
        self, repository: _Repository, name: str, rest: str, headers: Mapping[str, str], data: bytes
    ) -> Answer:
        manifest = json.loads(data)
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        if rest.startswith("sha256:") and rest != digest:
            return error(400, "DIGEST_INVALID", "manifest has another digest")
        parts = [*manifest.get("layers", []), *filter(None, [manifest.get("config")])]
        missing = [p["digest"] for p in parts if p["digest"] not in repository.blobs]
        missing += [
            m["digest"]
            for m in manifest.get("manifests", [])
            if m["digest"] not in repository.manifests
        ]
        if missing:
            return error(400, "MANIFEST_BLOB_UNKNOWN", f"unknown: {missing}")
        repository.manifests[digest] = (headers.get("Content-Type", _OCI_INDEX), data)
        if not rest.startswith("sha256:"):
            repository.tags[rest] = digest
        answer = {"Location": f"/v2/{name}/manifests/{digest}", "Docker-Content-Digest": digest}
        if self.referrers_api and "subject" in manifest:
            answer["OCI-Subject"] = manifest["subject"]["digest"]
        return Answer(201, answer)

    def _tags(self, method: str, name: str, rest: str, *context: Any) -> Answer:
        query, _, _ = context
        if name not in self.repositories:
            return error(404, "NAME_UNKNOWN", "repository name not known to registry")
        size = min(int(query.get("n", self.page_size)), self.page_size)
        tags = sorted(t for t in self.repositories[name].tags if t > query.get("last", ""))
        headers = {}
        if len(tags) > size:
            following = f"/v2/{name}/tags/list?n={size}&last={tags[size - 1]}"
            headers["Link"] = f'<{following}>; rel="next"'
        return json_answer(200, {"name": name, "tags": tags[:size]}, headers)

    def _referrers(self, method: str, name: str, rest: str, *context: Any) -> Answer:
        query, _, _ = context
        if not self.referrers_api:
            return error(404, "NOT_FOUND", "no such route")
        found = []
        for digest, (media_type, data) in sorted(self._repository(name).manifests.items()):
            manifest = json.loads(data)
            if manifest.get("subject", {}).get("digest") != rest:
                continue
            entry = {
                "mediaType": media_type,
                "digest": digest,
                "size": len(data),
                "artifactType": manifest.get("artifactType")
                or manifest.get("config", {}).get("mediaType"),
            }
            if "annotations" in manifest:
                entry["annotations"] = manifest["annotations"]
            found.append(entry)
        headers = {"Content-Type": _OCI_INDEX}
        if "artifactType" in query:
            found = [entry for entry in found if entry["artifactType"] == query["artifactType"]]
            headers["OCI-Filters-Applied"] = "artifactType"
        index = {"schemaVersion": 2, "mediaType": _OCI_INDEX, "manifests": found}
        return json_answer(200, index, headers)

    def _repository(self, name: str) -> _Repository:
        return self.repositories.setdefault(name, _Repository())


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, registry: Registry) -> None:
        self.registry = registry
        self.stopping = threading.Event()
        self.crashes: list[BaseException] = []
        self._open: set[socket.socket] = set()
        super().__init__(("127.0.0.1", 0), _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        self.registry.connections += 1
        self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._open.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        error = sys.exception()
        if (
            error is not None
            and not isinstance(error, ConnectionError)
            and not self.stopping.is_set()
        ):
            self.crashes.append(error)

    def stop(self) -> None:
        self.stopping.set()
        self.shutdown()
        self.server_close()
        for connection in list(self._open):
            super().shutdown_request(connection)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def _handle(self) -> None:
        registry = self.server.registry
        self._body: bytes | None = None
        self._status = 0
        self.stopping = self.server.stopping

        def answer() -> Answer:
            return registry.answer(self.command, self.path, self.headers, self.drain())  # type: ignore[arg-type]

        fault = registry.fault_for(self.command, self.path)
        if fault is None:
            self.send(answer())
        else:
            fault.apply(self, answer)
        if self._status == 0:
            self._log(0)

    def _log(self, status: int) -> None:
        self._status = status
        headers = dict(self.headers.items())
        self.server.registry.log(LoggedRequest(self.command, self.path, headers, status))

    do_GET = do_HEAD = do_PUT = do_POST = do_PATCH = do_DELETE = _handle  # noqa: N815

    def drain(self) -> bytes:
        """The request's body."""
        if self._body is None:
            if self.headers.get("Transfer-Encoding") == "chunked":
                self._body = self._chunked()
            else:
                self._body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        return self._body

    def _chunked(self) -> bytes:
        body = bytearray()
        while size := int(self.rfile.readline().strip() or b"0", 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return bytes(body)

    def send(self, answer: Answer) -> None:
        """Send a response."""
        self._log(answer.status)  # before the client can know the answer
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        length = len(answer.body) if answer.length is None else answer.length
        if length >= 0:
            self.send_header("Content-Length", str(length))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer.body)

    def hang_up(self) -> None:
        """Close the connection after this request."""
        self.close_connection = True

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Keep quiet: the registry has its own log."""
