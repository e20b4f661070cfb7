"""The `sha256-<hex>` fallback tag: referrers of a manifest where no referrers API lists them.

OCI distribution-spec v1.1, "Referrers Tag Schema". Pure functions on the index that the tag
names; both stores read and write it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgectl.oci.descriptor import Descriptor, Index, Manifest, parse_manifest

if TYPE_CHECKING:
    from collections.abc import Iterable

    from edgectl.digest import Digest


def fallback_tag(subject: Digest) -> str:
    """The tag under which the referrers of a manifest are listed."""
    return f"sha256-{subject.hex}"


def is_fallback_tag(tag: str) -> bool:
    """Whether a tag lists the referrers of a manifest."""
    return tag.startswith("sha256-")


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


def of_type(referrers: Iterable[Descriptor], artifact_type: str | None) -> list[Descriptor]:
    """Those of one artifact type, or all."""
    return [item for item in referrers if artifact_type in (None, item.artifact_type)]


def _index(referrers: Iterable[Descriptor]) -> bytes:
    return Index(tuple(sorted(referrers, key=lambda item: item.digest))).to_bytes()
