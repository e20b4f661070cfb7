"""The `index.json` of an OCI image layout (image-spec v1.1, image-layout.md) as a value.

Every manifest that was pushed is listed, tagged or not: tools that collect garbage keep what
`index.json` reaches and nothing else.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Self

from edgectl.digest import Digest, canonical_json
from edgectl.errors import IntegrityError
from edgectl.oci.descriptor import OCI_INDEX, Descriptor, fault

if TYPE_CHECKING:
    from collections.abc import Mapping

REF_NAME = "org.opencontainers.image.ref.name"


def _tag_of(entry: Descriptor) -> str | None:
    return entry.annotations.get(REF_NAME)


def _bare(entry: Descriptor) -> Descriptor:
    """The descriptor as a registry's HEAD would give it."""
    return Descriptor(entry.media_type, entry.digest, entry.size)


@dataclass(frozen=True)
class LayoutIndex:
    """What `index.json` lists."""

    entries: tuple[Descriptor, ...] = ()

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Parse; raises IntegrityError if it is not an image layout's index."""
        try:
            manifests: list[Any] = json.loads(data)["manifests"]
            return cls(tuple(Descriptor.from_json(item) for item in manifests))
        except (KeyError, TypeError, ValueError, RecursionError) as error:
            raise IntegrityError(f"not an image layout's index: {fault(error)}") from error

    def to_bytes(self) -> bytes:
        """Canonical JSON, tags first, so that equal contents are equal files."""
        ordered = sorted(
            self.entries, key=lambda e: (_tag_of(e) is None, _tag_of(e) or "", e.digest)
        )
        return canonical_json(
            {
                "schemaVersion": 2,
                "mediaType": OCI_INDEX,
                "manifests": [entry.to_json() for entry in ordered],
            }
        )

    @cached_property
    def tags(self) -> Mapping[str, Descriptor]:
        """Every tag in sorted order."""
        tagged = {tag: entry for entry in self.entries if (tag := _tag_of(entry)) is not None}
        return {tag: _bare(tagged[tag]) for tag in sorted(tagged)}

    @cached_property
    def manifests(self) -> Mapping[Digest, Descriptor]:
        """Every manifest."""
        return {entry.digest: _bare(entry) for entry in self.entries}

    def with_manifest(
        self, descriptor: Descriptor, tag: str | None, *, keep_replaced: bool = True
    ) -> Self:
        """List a manifest, under a tag when one is given.

        The manifest that the tag named before stays listed without a tag, unless
        `keep_replaced` is false.
        """
        if tag is None:
            if descriptor.digest in self.manifests:
                return self
            return replace(self, entries=(*self.entries, descriptor))
        before = self.tags.get(tag)
        index = self.without_tag(tag, keep=keep_replaced) if before is not None else self
        tagged = replace(descriptor, annotations={REF_NAME: tag})
        others = (
            entry
            for entry in index.entries
            if _tag_of(entry) is not None or entry.digest != descriptor.digest
        )
        return replace(index, entries=(*others, tagged))

    def without_tag(self, tag: str, *, keep: bool = True) -> Self:
        """Remove a tag; with `keep` its manifest stays listed."""
        found = self.tags.get(tag)
        entries = tuple(entry for entry in self.entries if _tag_of(entry) != tag)
        index = replace(self, entries=entries)
        return index.with_manifest(found, None) if found is not None and keep else index

    def without_manifest(self, digest: Digest) -> Self:
        """Remove a manifest and every tag of it."""
        return replace(self, entries=tuple(e for e in self.entries if e.digest != digest))
