"""Bundles attached to an artifact: written and read as its referrers.

The manifest is the one of cosign v3 (`pkg/oci/remote/write.go`, WriteReferrer) less the creation
time, which would make a second signature of the same artifact another manifest.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgectl.errors import IntegrityError, NotFoundError, SignatureError
from edgectl.oci.descriptor import (
    EMPTY_CONFIG,
    OCI_MANIFEST,
    TITLE,
    Descriptor,
    Index,
    Manifest,
    parse_manifest,
)
from edgectl.trust.bundle import BUNDLE_TYPE, MAX_BUNDLE_BYTES

if TYPE_CHECKING:
    from edgectl.oci.store import Repository

_CONTENT = "dev.sigstore.bundle.content"
_PREDICATE_TYPE = "dev.sigstore.bundle.predicateType"
UNUSABLE = (SignatureError, NotFoundError, IntegrityError)
"""What one bundle may fail with. Whoever can push can attach such a one beside a good one, which
counts all the same."""
MAX_REFERRERS = 256
"""Most bundles of one artifact that are read: whoever can push could attach any number."""


def attach(
    repository: Repository, subject: Descriptor, bundle: bytes, predicate_type: str
) -> Descriptor:
    """Push a bundle as a referrer of `subject`; returns the referrer's descriptor."""
    layer = Descriptor.of(bundle, BUNDLE_TYPE)
    title = {TITLE: f"sha256-{layer.digest.hex}.sigstore.json"}
    manifest = Manifest(
        config=EMPTY_CONFIG,
        layers=(Descriptor(layer.media_type, layer.digest, layer.size, title),),
        artifact_type=BUNDLE_TYPE,
        subject=Descriptor(subject.media_type, subject.digest, subject.size),
        annotations={_CONTENT: "dsse-envelope", _PREDICATE_TYPE: predicate_type},
    )
    repository.push_blob(EMPTY_CONFIG, b"{}")
    repository.push_blob(layer, bundle)
    return repository.push_manifest(manifest.to_bytes(), OCI_MANIFEST)


def find(repository: Repository, subject: Descriptor) -> list[Descriptor]:
    """The manifests of the bundles attached to `subject`; raises SignatureError if too many."""
    found = repository.referrers(subject.digest, BUNDLE_TYPE)
    if len(found) > MAX_REFERRERS:
        raise SignatureError(
            f"{subject.digest} has {len(found)} signature bundles, over {MAX_REFERRERS}",
            hint="delete those that do not belong there",
        )
    return found


def bundle(repository: Repository, referrer: Descriptor) -> bytes:
    """The bundle of one that `find` found, whole and checked against its digest.

    Raises one of `UNUSABLE`: it holds none, or is malformed, missing or damaged.
    """
    _, data = repository.read_manifest(str(referrer.digest))
    return read(repository, data)


def blobs(manifest: bytes) -> tuple[Descriptor, Descriptor]:
    """Config and bundle of a referrer's manifest; raises SignatureError if it holds another."""
    try:
        parsed = parse_manifest(manifest)
    except IntegrityError as error:
        raise SignatureError(f"a referrer is not readable: {error.message}") from error
    if isinstance(parsed, Index) or [layer.media_type for layer in parsed.layers] != [BUNDLE_TYPE]:
        raise SignatureError("a referrer of the type of a signature bundle holds something else")
    (layer,) = parsed.layers
    if max(layer.size, parsed.config.size) > MAX_BUNDLE_BYTES:
        raise SignatureError(f"bundle {layer.digest} is over {MAX_BUNDLE_BYTES} bytes")
    return parsed.config, layer


def read(repository: Repository, manifest: bytes) -> bytes:
    """The bundle that a referrer's manifest holds; raises SignatureError if it holds none."""
    _, layer = blobs(manifest)
    return b"".join(repository.read_blob(layer))
