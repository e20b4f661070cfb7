"""Sign and verify everything below one manifest or index."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgectl.errors import IntegrityError, NotFoundError, SignatureError
from edgectl.oci.descriptor import TITLE, Descriptor, Index, parse_manifest
from edgectl.oci.verify import check_bytes
from edgectl.trust import referrer, signature

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from edgectl.digest import Digest
    from edgectl.errors import EdgectlError
    from edgectl.oci.store import Repository
    from edgectl.trust.keys import PrivateKey, PublicKey

_TITLES = ("org.cncf.model.filepath", TITLE)
_MAX_DEPTH = 4
"""An index may list indexes; nothing real goes deeper, and a hostile one could go on for ever."""


@dataclass(frozen=True, slots=True)
class TreeSummary:
    """What was read and found right."""

    manifests: int
    """Manifests and indexes, each with an acceptable signature."""
    blobs: int
    """Configs and layers, shared ones counted once."""
    bundles: int
    """Signatures and attestations attached to the manifests."""
    bytes: int
    """Bytes read and hashed, manifests and bundles included."""


def sign_tree(repository: Repository, descriptor: Descriptor, key: PrivateKey) -> list[Descriptor]:
    """Sign an index and every manifest below it, the lowest first; returns what was signed.

    An index is signed only when all that it lists is. Raises IntegrityError or NotFoundError if
    something that would be signed is malformed or missing.
    """
    manifests = {found.digest: found for found in _manifests(repository, descriptor, 0)}
    for manifest in manifests.values():
        signature.sign(repository, manifest, key)
    return list(manifests.values())


def verify_tree(
    repository: Repository, descriptor: Descriptor, keys: Sequence[PublicKey]
) -> TreeSummary:
    """Read and hash every byte below `descriptor`, and require a signature on every manifest.

    Signatures and attestations are read too, whoever made them. Raises SignatureError if a
    manifest or index has no acceptable signature, IntegrityError or NotFoundError naming the blob
    by digest and title if its bytes are damaged or missing.
    """
    signature.require_keys(keys)
    verifier = _Verifier(repository, keys)
    verifier.manifest(descriptor, "", 0)
    return TreeSummary(
        len(verifier.manifests), len(verifier.blobs), verifier.bundles, verifier.bytes
    )


def _manifests(repository: Repository, descriptor: Descriptor, depth: int) -> Iterator[Descriptor]:
    """Every manifest below and including one, children before parents."""
    _check_depth(descriptor, depth)
    _, data = repository.read_manifest(str(descriptor.digest))
    parsed = parse_manifest(data)
    if isinstance(parsed, Index):
        for child in parsed.manifests:
            yield from _manifests(repository, child, depth + 1)
    # Bare, so that one manifest listed twice with other annotations is one manifest.
    yield Descriptor(parsed.media_type, descriptor.digest, len(data))


class _Verifier:
    """One walk: what was seen is not read twice."""

    def __init__(self, repository: Repository, keys: Sequence[PublicKey]) -> None:
        self._repository = repository
        self._keys = keys
        self.manifests: set[Digest] = set()
        self.blobs: set[Digest] = set()
        self.bundles = 0
        self.bytes = 0

    def manifest(self, descriptor: Descriptor, parent: str, depth: int) -> None:
        """A manifest or index, its signatures and all below it; parsed once it is trusted."""
        if descriptor.digest in self.manifests:
            return
        _check_depth(descriptor, depth)
        data = self._read_manifest(descriptor, parent)
        self.manifests.add(descriptor.digest)
        self._signatures(descriptor)
        parsed = parse_manifest(data)
        here = f"in {descriptor.digest}"
        if isinstance(parsed, Index):
            for child in parsed.manifests:
                self.manifest(child, here, depth + 1)
            return
        for blob in parsed.blobs:
            self._blob(blob, here)

    def _signatures(self, descriptor: Descriptor) -> None:
        """Read every bundle to its last byte; one must be an acceptable signature."""
        here = f"attached to {descriptor.digest}"
        accepted = False
        faults: list[EdgectlError] = []
        for found in referrer.find(self._repository, descriptor):
            data = self._read_manifest(found, here)
            self.bundles += 1
            try:
                for blob in referrer.blobs(data):
                    self._blob(blob, f"of {found.digest}, {here}")
                bundle = referrer.read(self._repository, data)
                signature.accept(bundle, descriptor, self._keys)
                accepted = True
            except SignatureError as error:
                faults.append(error)
        if not accepted:
            raise signature.refusal(self._repository, descriptor, faults)

    def _read_manifest(self, descriptor: Descriptor, where: str) -> bytes:
        with _named(descriptor, "manifest", where):
            _, data = self._repository.read_manifest(str(descriptor.digest))
            check_bytes(data, descriptor)
        self.bytes += len(data)
        return data

    def _blob(self, descriptor: Descriptor, where: str) -> None:
        if descriptor.digest in self.blobs:
            return
        with _named(descriptor, "blob", where):
            for chunk in self._repository.read_blob(descriptor):
                self.bytes += len(chunk)
        self.blobs.add(descriptor.digest)


@contextmanager
def _named(descriptor: Descriptor, kind: str, where: str) -> Iterator[None]:
    """Say which blob it is, by title and digest, in an error about its bytes."""
    titles = (descriptor.annotations.get(key, "") for key in _TITLES)
    # Anybody may have written it, and a terminal may show it.
    title = next((title for title in titles if title and title.isprintable()), kind)
    try:
        yield
    except (IntegrityError, NotFoundError) as error:
        what = " ".join(part for part in (title, str(descriptor.digest), where) if part)
        raise type(error)(f"{what}: {error.message}", hint=error.hint) from error


def _check_depth(descriptor: Descriptor, depth: int) -> None:
    if depth > _MAX_DEPTH:
        raise IntegrityError(
            f"{descriptor.digest} is an index within more than {_MAX_DEPTH} others"
        )
