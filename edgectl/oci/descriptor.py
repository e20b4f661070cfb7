"""OCI descriptors, manifests and indexes, parsed once into strict frozen types.

Follows OCI image-spec v1.1: descriptor.md, manifest.md, image-index.md. Plain dataclasses rather
than pydantic models, because the device imports this.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

from edgectl.digest import Digest, canonical_json
from edgectl.errors import IntegrityError

if TYPE_CHECKING:
    from collections.abc import Mapping

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"
OCI_LAYER_GZIP = "application/vnd.oci.image.layer.v1.tar+gzip"
OCI_EMPTY = "application/vnd.oci.empty.v1+json"
TITLE = "org.opencontainers.image.title"
"""Annotation: a title for people; of a layer, the name of its file, as ORAS pulls it."""
VERSION = "org.opencontainers.image.version"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_INDEX = "application/vnd.docker.distribution.manifest.list.v2+json"

MAX_MANIFEST_BYTES = 4 << 20
"""Largest manifest that is read (distribution-spec: registries need not take more than 4 MiB)."""


@dataclass(frozen=True, slots=True)
class Platform:
    """`os/architecture[/variant]`, in Go's names."""

    os: str
    architecture: str
    variant: str | None = None

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """Read a platform object; raises KeyError, TypeError or ValueError if it is not one."""
        return cls(
            _text(str(value["os"])),
            _text(str(value["architecture"])),
            _optional_text(value, "variant"),
        )

    def to_json(self) -> dict[str, str]:
        """The platform object of image-index.md."""
        value = {"architecture": self.architecture, "os": self.os}
        if self.variant is not None:
            value["variant"] = self.variant
        return value

    def __str__(self) -> str:
        return "/".join(part for part in (self.os, self.architecture, self.variant) if part)


@dataclass(frozen=True, slots=True)
class Descriptor:
    """What to fetch and how to know that it is the right thing."""

    media_type: str
    digest: Digest
    size: int
    annotations: Mapping[str, str] = field(default_factory=dict)
    artifact_type: str | None = None
    platform: Platform | None = None

    @classmethod
    def of(cls, data: bytes, media_type: str, **fields: Any) -> Self:
        """Describe bytes in memory."""
        return cls(media_type, Digest.of(data), len(data), **fields)

    @classmethod
    def from_json(cls, value: Any) -> Self:
        """Read a descriptor; raises IntegrityError if it is malformed."""
        try:
            size = value["size"]
            platform = value.get("platform")
            if not isinstance(size, int) or isinstance(size, bool) or size < 0:
                raise ValueError(f"its size is {size!r}")
            media_type = value["mediaType"]
            if not (media_type.isascii() and media_type.isprintable()):
                raise ValueError(f"its mediaType is {media_type!r}")
            return cls(
                media_type,
                Digest.parse(value["digest"]),
                size,
                _annotations(value),
                _optional_text(value, "artifactType"),
                None if platform is None else Platform.from_json(platform),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise IntegrityError(f"malformed OCI descriptor: {fault(error)}") from error

    def to_json(self) -> dict[str, Any]:
        """The descriptor object, without empty fields."""
        value: dict[str, Any] = {
            "mediaType": self.media_type,
            "digest": str(self.digest),
            "size": self.size,
        }
        if self.annotations:
            value["annotations"] = dict(self.annotations)
        if self.artifact_type is not None:
            value["artifactType"] = self.artifact_type
        if self.platform is not None:
            value["platform"] = self.platform.to_json()
        return value


def _annotations(value: Mapping[str, Any]) -> dict[str, str]:
    annotations = value.get("annotations") or {}
    if not all(isinstance(k, str) and isinstance(v, str) for k, v in annotations.items()):
        raise TypeError("annotations are not strings")
    return {_text(key): _text(text) for key, text in annotations.items()}


def _optional_text(value: Mapping[str, Any], key: str) -> str | None:
    text = value.get(key)
    if text is not None and not isinstance(text, str):
        raise TypeError(f"{key} is not a string")
    return None if text is None else _text(text)


def _text(text: str) -> str:
    """A string that can be written again: half of a surrogate pair, which JSON can say with an
    escape, has no UTF-8. Raises ValueError."""
    text.encode()
    return text


EMPTY_CONFIG = Descriptor.of(b"{}", OCI_EMPTY)
"""The empty JSON object (manifest.md, "Guidance for an Empty Descriptor"); its blob is `{}`."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """An image manifest: one config and ordered layers."""

    config: Descriptor
    layers: tuple[Descriptor, ...]
    artifact_type: str | None = None
    subject: Descriptor | None = None
    annotations: Mapping[str, str] = field(default_factory=dict)
    media_type: str = OCI_MANIFEST

    def to_bytes(self) -> bytes:
        """Canonical JSON: equal manifests have equal digests."""
        value: dict[str, Any] = {
            "schemaVersion": 2,
            "mediaType": self.media_type,
            "config": self.config.to_json(),
            "layers": [layer.to_json() for layer in self.layers],
        }
        _add_common(value, self.artifact_type, self.subject, self.annotations)
        return canonical_json(value)

    @property
    def blobs(self) -> tuple[Descriptor, ...]:
        """Config and layers."""
        return (self.config, *self.layers)


@dataclass(frozen=True, slots=True)
class Index:
    """An image index: ordered descriptors of manifests."""

    manifests: tuple[Descriptor, ...]
    artifact_type: str | None = None
    subject: Descriptor | None = None
    annotations: Mapping[str, str] = field(default_factory=dict)
    media_type: str = OCI_INDEX

    def to_bytes(self) -> bytes:
        """Canonical JSON: equal indexes have equal digests."""
        value: dict[str, Any] = {
            "schemaVersion": 2,
            "mediaType": self.media_type,
            "manifests": [manifest.to_json() for manifest in self.manifests],
        }
        _add_common(value, self.artifact_type, self.subject, self.annotations)
        return canonical_json(value)


def _add_common(
    value: dict[str, Any],
    artifact_type: str | None,
    subject: Descriptor | None,
    annotations: Mapping[str, str],
) -> None:
    if artifact_type is not None:
        value["artifactType"] = artifact_type
    if subject is not None:
        value["subject"] = subject.to_json()
    if annotations:
        value["annotations"] = dict(annotations)


def fault(error: Exception) -> str:
    """What kept JSON of somebody else's making from being read, in words."""
    if isinstance(error, json.JSONDecodeError):
        return f"it is not JSON: {error}"
    if isinstance(error, UnicodeDecodeError):
        return "it is not UTF-8"
    if isinstance(error, UnicodeEncodeError):
        return "a string in it has half of a surrogate pair"
    if isinstance(error, KeyError):
        return f"it has no {error.args[0]!r}"
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    if isinstance(error, (TypeError, AttributeError)):
        return "a value in it is of another type than it has to be"
    return str(error)


def parse_manifest(data: bytes) -> Manifest | Index:
    """Parse a manifest or index (OCI's, or Docker's equivalents); raises IntegrityError."""
    try:
        value = json.loads(data)
        # Whoever reads it as the other of the two would see other content under the same digest.
        if "manifests" in value and ("layers" in value or "config" in value):
            raise ValueError("it is an index and an image manifest at once")
        media_type = value.get("mediaType") or (OCI_INDEX if "manifests" in value else OCI_MANIFEST)
        subject = value.get("subject")
        common: dict[str, Any] = {
            "artifact_type": _optional_text(value, "artifactType"),
            "subject": None if subject is None else Descriptor.from_json(subject),
            "annotations": _annotations(value),
            "media_type": media_type,
        }
        if media_type in {OCI_INDEX, DOCKER_INDEX}:
            return Index(tuple(Descriptor.from_json(item) for item in value["manifests"]), **common)
        if media_type in {OCI_MANIFEST, DOCKER_MANIFEST}:
            layers = tuple(Descriptor.from_json(item) for item in value["layers"])
            return Manifest(Descriptor.from_json(value["config"]), layers, **common)
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise IntegrityError(f"malformed OCI manifest: {fault(error)}") from error
    raise IntegrityError(f"{media_type!r} is neither an OCI manifest nor an OCI index")
