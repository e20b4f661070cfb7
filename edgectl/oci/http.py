"""The store on an HTTP registry (OCI distribution-spec v1.1).

Works with registries that know `artifactType`, `subject` and the referrers API, and with those
that only store what they are given, as distribution 2.8 does: there the `sha256-<hex>` fallback
tag lists the referrers.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
from contextlib import AbstractContextManager, contextmanager
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from edgectl.digest import Digest
from edgectl.errors import (
    EdgectlError,
    IntegrityError,
    NotFoundError,
    RegistryDeniedError,
    RegistryUnavailableError,
    SourceError,
)
from edgectl.oci import referrers
from edgectl.oci.descriptor import (
    DOCKER_INDEX,
    DOCKER_MANIFEST,
    EMPTY_CONFIG,
    MAX_MANIFEST_BYTES,
    OCI_INDEX,
    OCI_MANIFEST,
    Descriptor,
    Manifest,
    parse_manifest,
)
from edgectl.oci.session import Client, Response
from edgectl.oci.verify import (
    CHUNK_BYTES,
    check_bytes,
    ended_early,
    read_verified,
    wrong_digest,
    wrong_size,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from edgectl.oci.access import Access
    from edgectl.oci.reference import RegistryLocation

_ACCEPT = {"Accept": f"{OCI_MANIFEST}, {OCI_INDEX}, {DOCKER_MANIFEST}, {DOCKER_INDEX}"}
_CONTENT_RANGE = re.compile(r"bytes ([0-9]{1,18})-[0-9]{1,18}/([0-9]{1,18}|\*)")
_MAX_LIST_BYTES = 32 << 20
_MAX_PAGES = 1000
_NOT_FOUND = frozenset({404})
_FALLBACK_ATTEMPTS = 10
_DOING = {"HEAD": "looking up", "GET": "reading", "POST": "pushing to", "DELETE": "deleting"}


class HttpStore:
    """Every repository below one prefix of a registry host."""

    def __init__(self, location: RegistryLocation, access: Access) -> None:
        self._location = location
        self._client = Client(location.base, access)
        self._repositories: dict[str, HttpRepository] = {}

    @property
    def location(self) -> RegistryLocation:
        """Where this store is."""
        return self._location

    def repository(self, name: str) -> HttpRepository:
        """One repository below the prefix."""
        full = self._location.repository(name)
        return self._repositories.setdefault(name, HttpRepository(self._client, name, full))


class HttpRepository:
    """One repository of a registry."""

    def __init__(self, client: Client, name: str, full_name: str) -> None:
        self._client = client
        self._name = name
        self._full_name = full_name
        self._fallback_lock = threading.Lock()

    @property
    def name(self) -> str:
        """The name below the store's location."""
        return self._name

    def resolve(self, target: str) -> Descriptor | None:
        """Describe a tag or digest with one HEAD; None if absent.

        A registry whose HEAD says too little is asked with a GET.
        """
        with self._request("HEAD", f"manifests/{target}", _ACCEPT, _NOT_FOUND) as response:
            if response.status == 404:
                return None
            described = _describe(response, target)
        return self._get_manifest(target)[0] if described is None else described

    def read_manifest(self, target: str) -> tuple[Descriptor, bytes]:
        """Read a manifest by tag or digest, verified."""
        return self._get_manifest(target)

    def has_blob(self, digest: Digest) -> bool:
        """Whether the blob is there (HEAD)."""
        with self._request("HEAD", f"blobs/{digest}", accept=_NOT_FOUND) as response:
            return response.status != 404

    def read_blob(self, descriptor: Descriptor, *, offset: int = 0) -> Iterator[bytes]:
        """Stream a blob from `offset`, verified as `Repository.read_blob` says."""
        if offset >= descriptor.size > 0:
            return
        headers = {"Range": f"bytes={offset}-"} if offset else {}
        accept = frozenset({416})
        with self._request("GET", f"blobs/{descriptor.digest}", headers, accept) as response:
            _start_blob(response, descriptor, offset)
            yield from read_verified(response.read, descriptor, offset=offset)

    def push_blob(self, descriptor: Descriptor, source: Path | bytes | BinaryIO) -> None:
        """Store a blob unless it is there; verified while it is sent."""
        if self.has_blob(descriptor.digest):
            return
        with self._request("POST", "blobs/uploads/") as response:
            location = self._upload_location(response)
        url = _with_query(location, "digest", str(descriptor.digest))
        with _opened(source) as file:
            start = file.tell() if file.seekable() else 0

            def body() -> BinaryIO:
                if file.seekable():
                    file.seek(start)
                return _VerifiedBody(file, descriptor)  # type: ignore[return-value]  # reads only

            with self._client.request(
                "PUT",
                url,
                repository=self._full_name,
                doing=f"pushing {descriptor.digest} to {self._full_name}",
                headers={"Content-Type": "application/octet-stream"},
                body=body,
            ):
                return

    def push_manifest(self, data: bytes, media_type: str, *, tag: str | None = None) -> Descriptor:
        """Store a manifest, tag it, and see to it that its subject lists it as a referrer."""
        subject = parse_manifest(data).subject
        descriptor = Descriptor.of(data, media_type)
        listed_by_registry = self._put_manifest(data, media_type, tag or str(descriptor.digest))
        if subject is not None and not listed_by_registry:
            referrer = referrers.describe(data, media_type)
            self._change_fallback(subject.digest, lambda now: referrers.added(now, referrer))
        return descriptor

    def tag(self, descriptor: Descriptor, tag: str) -> None:
        """Point a tag at a manifest that is there already."""
        found, data = self._get_manifest(str(descriptor.digest))
        self._put_manifest(data, found.media_type, tag)

    def tags(self) -> dict[str, Digest | None]:
        """Every tag in sorted order."""
        found: dict[str, Digest | None] = {}
        for data in self._pages("tags/list?n=1000", _MAX_LIST_BYTES):
            page = _parse_tags(data)
            if not page - found.keys():
                break  # whatever the link says, it leads nowhere new
            found |= dict.fromkeys(page)
        return dict(sorted(found.items()))

    def referrers(self, digest: Digest, artifact_type: str | None = None) -> list[Descriptor]:
        """Manifests whose subject is `digest`, by the referrers API or the fallback tag."""
        query = "" if artifact_type is None else f"?{urlencode({'artifactType': artifact_type})}"
        found: dict[Digest, Descriptor] | None = None
        for data in self._pages(f"referrers/{digest}{query}", MAX_MANIFEST_BYTES):
            page = {item.digest: item for item in referrers.listed(data)}
            if found is not None and page.keys() <= found.keys():
                break
            found = {**(found or {}), **page}
        if found is not None:
            return referrers.of_type(found.values(), artifact_type)
        return referrers.of_type(self._fallback(digest), artifact_type, self.read_manifest)

    def delete(self, target: str) -> None:
        """Remove a tag, or a manifest by digest."""
        if not target.startswith("sha256:"):
            self._delete_tag(target)
            return
        try:
            manifest = parse_manifest(self._get_manifest(target)[1])
        except NotFoundError:
            return
        with self._request("DELETE", f"manifests/{target}", accept=_NOT_FOUND):
            pass
        if manifest.subject is not None:
            digest = Digest.parse(target)
            subject = manifest.subject.digest
            self._change_fallback(subject, lambda now: referrers.removed(now, digest))

    def _request(
        self,
        method: str,
        path: str,
        headers: dict[str, str] | None = None,
        accept: frozenset[int] = frozenset(),
    ) -> AbstractContextManager[Response]:
        url = path if path.startswith("/") else f"/v2/{self._full_name}/{path}"
        return self._client.request(
            method,
            self._client.url(url),
            repository=self._full_name,
            doing=f"{_DOING[method]} {self._full_name} {path.partition('?')[0]}",
            headers=headers,
            accept=accept,
        )

    def _pages(self, path: str, limit: int) -> Iterator[bytes]:
        """Every page of a list, none if there is no such list.

        Raises IntegrityError if it has no end, or the pages together more bytes than `limit`.
        """
        following = path
        for _ in range(_MAX_PAGES):
            with self._request("GET", following, accept=_NOT_FOUND) as response:
                if response.status == 404:
                    return
                data = response.read_all(limit)
                limit -= len(data)
                link = _next_page(response)
            yield data
            if link is None:
                return
            following = link
        raise IntegrityError(f"{self._full_name} lists more than {_MAX_PAGES} pages at {path}")

    def _get_manifest(self, target: str) -> tuple[Descriptor, bytes]:
        with self._request("GET", f"manifests/{target}", _ACCEPT) as response:
            data = response.read_all(MAX_MANIFEST_BYTES)
            media_type = _media_type(response)
            declared = _digest_header(response)
        wanted = Digest.parse(target) if target.startswith("sha256:") else declared
        descriptor = Descriptor(media_type, wanted or Digest.of(data), len(data))
        check_bytes(data, descriptor)
        return descriptor, data

    def _put_manifest(self, data: bytes, media_type: str, target: str) -> bool:
        """Upload; true if the registry itself lists the manifest as a referrer."""
        with self._client.request(
            "PUT",
            self._client.url(f"/v2/{self._full_name}/manifests/{target}"),
            repository=self._full_name,
            doing=f"pushing {self._full_name} manifests/{target}",
            headers={"Content-Type": media_type},
            body=lambda: data,
        ) as response:
            return "OCI-Subject" in response.headers

    def _upload_location(self, response: Response) -> str:
        location = response.headers.get("Location")
        if response.status != 202 or not location:
            raise RegistryUnavailableError(
                f"registry {self._client.host} starts no upload to {self._full_name} "
                f"(HTTP {response.status})",
                hint="is it an OCI registry?",
            )
        url = self._client.url(location)
        if urlsplit(url).scheme != urlsplit(self._client.url("/")).scheme == "https":
            raise RegistryDeniedError(
                f"registry {self._client.host} wants uploads without TLS: {url.partition('?')[0]}",
                hint="its proxy has to say X-Forwarded-Proto: https",
            )
        return url

    def _fallback(self, subject: Digest) -> list[Descriptor]:
        try:
            return referrers.listed(self._get_manifest(referrers.fallback_tag(subject))[1])
        except NotFoundError:
            return []

    def _change_fallback(
        self, subject: Digest, change: Callable[[list[Descriptor]], bytes | None]
    ) -> None:
        """Change the fallback index and read it back, until the change has lasted.

        The registry has no compare-and-swap: another writer may put an index that does not know
        of this change.
        """
        with self._fallback_lock:
            for _ in range(_FALLBACK_ATTEMPTS):
                current = self._fallback(subject)
                data = change(current)
                if data is None:
                    return
                self._put_manifest(data, OCI_INDEX, referrers.fallback_tag(subject))
        raise RegistryUnavailableError(
            f"others keep changing the referrers of {subject} in {self._full_name}",
            hint="try again later",
        )

    def _delete_tag(self, tag: str) -> None:
        """Delete a tag; where a registry cannot, overwrite it and delete what it then names.

        Deleting the manifest under the tag would take its other tags along.
        """
        if self.resolve(tag) is None:
            return
        accept = frozenset({400, 404, 405})
        with self._request("DELETE", f"manifests/{tag}", accept=accept) as response:
            if response.status < 400 or response.status == 404:
                return
        tagged, original = self._get_manifest(tag)
        self.push_blob(EMPTY_CONFIG, b"{}")
        placeholder = Manifest(EMPTY_CONFIG, (), annotations={"dev.edgectl.deleted": tag})
        data = placeholder.to_bytes()
        self._put_manifest(data, OCI_MANIFEST, tag)
        try:
            with self._request("DELETE", f"manifests/{Digest.of(data)}"):
                pass
        except EdgectlError:
            self._put_manifest(original, tagged.media_type, tag)
            raise


class _VerifiedBody:
    """A file on its way out: its last piece is sent only if the whole is what was declared."""

    def __init__(self, file: BinaryIO, descriptor: Descriptor) -> None:
        self._file = file
        self._descriptor = descriptor
        self._hasher = hashlib.sha256()
        self._remaining = descriptor.size

    def __len__(self) -> int:
        return self._descriptor.size

    def read(self, count: int = -1) -> bytes:
        """Read the next piece; raises SourceError or IntegrityError."""
        if self._remaining == 0:
            return b""
        wanted = self._remaining if count < 0 else min(count, self._remaining)
        try:
            data = self._file.read(wanted)
        except OSError as error:
            raise SourceError(f"reading what to push: {error.strerror or error}") from error
        if not data:
            raise wrong_size(self._descriptor, self._descriptor.size - self._remaining)
        self._hasher.update(data)
        self._remaining -= len(data)
        if self._remaining == 0:
            if self._file.read(1):
                raise wrong_size(self._descriptor, self._descriptor.size + 1)
            if self._hasher.hexdigest() != self._descriptor.digest.hex:
                raise wrong_digest(self._descriptor, self._hasher.hexdigest())
        return data


@contextmanager
def _opened(source: Path | bytes | BinaryIO) -> Iterator[BinaryIO]:
    """What to push, as a file."""
    if isinstance(source, bytes):
        yield BytesIO(source)
    elif isinstance(source, Path):
        try:
            file = source.open("rb")
        except OSError as error:
            raise SourceError(f"{source}: {error.strerror or error}") from error
        with file:
            yield file
    else:
        yield source


def _start_blob(response: Response, descriptor: Descriptor, offset: int) -> None:
    """Check what a blob's response declares, and get to `offset` if it starts at 0."""
    if response.status == 416:
        raise ended_early(descriptor, offset)
    if response.status == 206:
        content_range = response.headers.get("Content-Range", "")
        match = _CONTENT_RANGE.fullmatch(content_range)
        if match is None or int(match[1]) != offset:
            raise IntegrityError(
                f"{descriptor.digest}: asked for bytes from {offset}, got {content_range[:80]!r}"
            )
        if match[2] not in {"*", str(descriptor.size)}:
            raise wrong_size(descriptor, int(match[2]))
        return
    if response.length not in {None, descriptor.size}:
        raise wrong_size(descriptor, response.length or 0)
    skipped = 0
    while skipped < offset:  # the Range was ignored
        data = response.read(min(CHUNK_BYTES, offset - skipped))
        if not data:
            raise ended_early(descriptor, skipped)
        skipped += len(data)


def _describe(response: Response, target: str) -> Descriptor | None:
    """The manifest that a HEAD describes; None if it says too little."""
    digest = _digest_header(response)
    if target.startswith("sha256:"):
        wanted = Digest.parse(target)
        if digest is not None and digest != wanted:
            raise IntegrityError(f"asked for manifest {wanted}, the registry has {digest} there")
        digest = wanted
    if digest is None or response.length is None:
        return None
    return Descriptor(_media_type(response), digest, response.length)


def _digest_header(response: Response) -> Digest | None:
    try:
        return Digest.parse(response.headers.get("Docker-Content-Digest", ""))
    except ValueError:
        return None  # absent, or of another algorithm: the content is hashed instead


def _media_type(response: Response) -> str:
    return response.headers.get("Content-Type", "").partition(";")[0].strip()


def _next_page(response: Response) -> str | None:
    """Path and query of the next page; its host is ours, whatever the link says."""
    link = response.next_link
    if link is None:
        return None
    try:
        parts = urlsplit(link)
    except ValueError as error:
        raise IntegrityError(f"the next page of a list is at no address: {link[:200]!r}") from error
    return urlunsplit(("", "", parts.path, parts.query, ""))


def _parse_tags(data: bytes) -> set[str]:
    try:
        return {str(tag) for tag in json.loads(data).get("tags") or ()}
    except (ValueError, AttributeError, TypeError, RecursionError) as error:
        raise IntegrityError(f"malformed list of tags: {error}") from error


def _with_query(url: str, name: str, value: str) -> str:
    parts = urlsplit(url)
    query = [*parse_qsl(parts.query, keep_blank_values=True), (name, value)]
    return urlunsplit(parts._replace(query=urlencode(query)))
