"""TUF metadata files as OCI artifacts: names, shape, and reading one.

The repository `trust` holds one artifact to a metadata file, under the tag `root.N`, `targets.N`,
`snapshot.N` or `timestamp`; its first layer is the file. The fleet documents are further layers of
`targets.N`, so that a registry's garbage collection keeps them.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tuf.api import exceptions
from tuf.ngclient.config import UpdaterConfig

from edgectl.digest import Digest
from edgectl.errors import (
    ExpiredTrustError,
    IntegrityError,
    NotFoundError,
    RegistryUnavailableError,
    TrustError,
)
from edgectl.oci.descriptor import (
    EMPTY_CONFIG,
    OCI_MANIFEST,
    TITLE,
    Descriptor,
    Manifest,
    parse_manifest,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from tuf.api.metadata import TargetFile, Targets

    from edgectl.oci.store import Repository

REPOSITORY = "trust"
TIMESTAMP_TAG = "timestamp"
ARTIFACT_TYPE = "application/vnd.edgectl.tuf.v1+json"
METADATA_TYPE = "application/vnd.edgectl.tuf.metadata.v1+json"
FLEET_TYPE = "application/vnd.edgectl.fleet.v1+json"
TARGETS_TAG = "dev.edgectl.trust.targets"
"""Annotation of `timestamp`: the tag of the targets it leads to. A hint, never trusted."""

_LIMITS = UpdaterConfig()
MAX_BYTES: Mapping[str, int] = {
    "root": _LIMITS.root_max_length,
    "timestamp": _LIMITS.timestamp_max_length,
    "snapshot": _LIMITS.snapshot_max_length,
    "targets": _LIMITS.targets_max_length,
}
"""Largest metadata file of each role that is read: python-tuf's own limits."""


def tag(role: str, version: int) -> str:
    """The tag of a versioned metadata file."""
    return f"{role}.{version}"


def target_path(fleet: str) -> str:
    """The TUF target path of a fleet's release document."""
    return f"fleets/{fleet}.json"


@dataclass(frozen=True, slots=True)
class Artifact:
    """One metadata artifact: where its file is, and the fleet documents beside it."""

    metadata: Descriptor
    documents: tuple[Descriptor, ...]
    annotations: Mapping[str, str]


def find(repository: Repository, tag: str) -> Artifact:
    """Look up the artifact under a tag; raises NotFoundError, IntegrityError if it is no such."""
    _, data = repository.read_manifest(tag)
    manifest = parse_manifest(data)
    if not isinstance(manifest, Manifest) or not manifest.layers:
        raise IntegrityError(f"{repository.name}:{tag} is not a TUF metadata artifact")
    return Artifact(manifest.layers[0], manifest.layers[1:], manifest.annotations)


def read(repository: Repository, tag: str, role: str) -> bytes:
    """Read the metadata file under a tag, bounded; not verified in TUF's sense.

    Raises NotFoundError, IntegrityError, TrustError if it is larger than its role may be.
    """
    artifact = find(repository, tag)
    if artifact.metadata.size > MAX_BYTES[role]:
        raise TrustError(
            f"{tag} declares {artifact.metadata.size} bytes, over {MAX_BYTES[role]}",
            hint="who could write to the registry?",
        )
    return b"".join(repository.read_blob(artifact.metadata))


def push(
    repository: Repository,
    tag: str,
    data: bytes,
    *,
    documents: Sequence[Descriptor] = (),
    annotations: Mapping[str, str] | None = None,
) -> None:
    """Store a metadata file under a tag; the documents it leads to are there already."""
    name = f"{tag}.json"
    if "." in tag:
        role, _, version = tag.partition(".")
        name = f"{version}.{role}.json"
    layer = Descriptor.of(data, METADATA_TYPE, annotations={TITLE: name})
    manifest = Manifest(
        config=EMPTY_CONFIG,
        layers=(layer, *documents),
        artifact_type=ARTIFACT_TYPE,
        annotations=annotations or {},
    )
    repository.push_blob(EMPTY_CONFIG, b"{}")
    repository.push_blob(layer, data)
    repository.push_manifest(manifest.to_bytes(), OCI_MANIFEST, tag=tag)


def document(target: TargetFile) -> Descriptor:
    """Where the document of a TUF target is; raises TrustError if no sha256 is given for it."""
    try:
        digest = Digest(target.hashes["sha256"])
    except (KeyError, ValueError) as error:
        raise TrustError(f"{target.path} has no sha256 in the release metadata") from error
    return Descriptor(FLEET_TYPE, digest, target.length, {TITLE: target.path})


def documents(targets: Targets) -> list[Descriptor]:
    """The documents of every target."""
    return [document(targets.targets[path]) for path in sorted(targets.targets)]


@contextmanager
def tuf_errors() -> Iterator[None]:
    """Turn what python-tuf raises into the errors of `edgectl.errors`."""
    try:
        yield
    except exceptions.ExpiredMetadataError as error:
        raise ExpiredTrustError(
            f"release metadata is too old: {error}",
            hint="the operator runs `edgectl trust refresh`; is this device's clock right?",
        ) from error
    except (exceptions.RepositoryError, exceptions.DownloadLengthMismatchError) as error:
        raise TrustError(
            f"release metadata is refused: {error}",
            hint="the registry may be serving old, mixed or forged metadata; "
            "the operator checks with `edgectl trust status`",
        ) from error
    except exceptions.DownloadHTTPError as error:
        raise NotFoundError(
            f"release metadata is missing: {error}", hint="has this registry a release yet?"
        ) from error
    except exceptions.DownloadError as error:
        raise RegistryUnavailableError(f"release metadata cannot be read: {error}") from error
