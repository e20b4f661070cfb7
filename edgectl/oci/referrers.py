"""The `sha256-<hex>` fallback tag: referrers of a manifest where no referrers API lists them.

OCI distribution-spec v1.1, "Referrers Tag Schema". Pure functions on the index that the tag
names; both stores read and write it.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from edgectl.digest import Digest
from edgectl.errors import NotFoundError
from edgectl.oci.descriptor import Descriptor, Index, Manifest, parse_manifest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    Read = Callable[[str], tuple[Descriptor, bytes]]

_FALLBACK_TAG = re.compile(r"sha256-([0-9a-f]{64})")
_MOST_UNTYPED = 256
"""Most referrers that are read for their type: a hostile list could name any number."""


def fallback_tag(subject: Digest) -> str:
    """The tag under which the referrers of a manifest are listed."""
    return f"sha256-{subject.hex}"


def subject_of(tag: str) -> Digest | None:
    """The manifest whose referrers are listed under a tag; None if it is no fallback tag."""
    match = _FALLBACK_TAG.fullmatch(tag)
    return None if match is None else Digest(match[1])


def describe(data: bytes, media_type: str) -> Descriptor:
    """Describe a manifest as a referrers list does: with its artifact type and annotations.

    The type of an image manifest without `artifactType` is its config's media type. Raises
    IntegrityError if the manifest is malformed.
    """
    manifest = parse_manifest(data)
    artifact_type = manifest.artifact_type
    if artifact_type is None and isinstance(manifest, Manifest):
        artifact_type = manifest.config.media_type
    return Descriptor.of(
        data, media_type, artifact_type=artifact_type, annotations=manifest.annotations
    )


def listed(data: bytes) -> list[Descriptor]:
    """The referrers in a referrers response or fallback index; IntegrityError if malformed."""
    index = parse_manifest(data)
    return list(index.manifests) if isinstance(index, Index) else []


def added(current: Iterable[Descriptor], referrer: Descriptor) -> bytes | None:
    """The new fallback index with one more referrer; None if it is listed already."""
    referrers = {item.digest: item for item in current}
    if referrers.get(referrer.digest) == referrer:
        return None
    referrers[referrer.digest] = referrer
    return _index(referrers.values())


def removed(current: Iterable[Descriptor], referrer: Digest) -> bytes | None:
    """The new fallback index without one referrer; None if it is not listed."""
    before = list(current)
    after = [item for item in before if item.digest != referrer]
    return None if len(after) == len(before) else _index(after)


def of_type(
    current: Iterable[Descriptor], artifact_type: str | None, read: Read | None = None
) -> list[Descriptor]:
    """Those of one artifact type, or all.

    With `read`, which reads a manifest, also those whose type the list does not say: tools that
    copy a fallback index drop what they do not know, as skopeo does before 1.16.
    """
    if artifact_type is None:
        return list(current)
    found: list[Descriptor] = []
    unread = _MOST_UNTYPED
    for item in current:
        described: Descriptor | None = item
        if item.artifact_type is None and read is not None and unread:
            unread -= 1
            described = _described(item, read)
        if described is not None and described.artifact_type == artifact_type:
            found.append(described)
    return found


def _described(item: Descriptor, read: Read) -> Descriptor | None:
    """A listed referrer as its manifest says; None if that is not there."""
    try:
        manifest, data = read(str(item.digest))
    except NotFoundError:
        return None
    return describe(data, manifest.media_type)


def _index(referrers: Iterable[Descriptor]) -> bytes:
    return Index(tuple(sorted(referrers, key=lambda item: item.digest))).to_bytes()
