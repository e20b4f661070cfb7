"""From a release to exactly what this device is to fetch, everything named by digest.

Nothing is parsed before its signature was verified, and nothing is fetched by tag: the release
names indexes by digest, an index names manifests by digest, a manifest names blobs by digest.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgectl.agent.select import Choice, Variant, select
from edgectl.agent.slots import model_files
from edgectl.errors import IncompatibleError, IntegrityError
from edgectl.oci.descriptor import Descriptor, Index, Manifest, parse_manifest
from edgectl.oci.verify import check_bytes
from edgectl.serve.slot import Slot, SlotModel
from edgectl.trust import signature

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from edgectl.agent.facts import Facts
    from edgectl.oci.store import Repository, Store
    from edgectl.trust.keys import PublicKey
    from edgectl.trust.release import FleetRelease, ModelRef, Ring, SoakSettings


@dataclass(frozen=True, slots=True)
class ResolvedModel:
    """One model of the release, as this device gets it."""

    entry: SlotModel
    variant: Variant
    repository: str
    manifest: bytes
    """The manifest itself, verified."""
    blobs: tuple[Descriptor, ...]
    """Everything that has to be fetched."""
    files: Mapping[str, Descriptor]
    """What of it goes into the model's directory, by file name."""


@dataclass(frozen=True, slots=True)
class Resolved:
    """What the release asks of this device."""

    slot: Slot
    soak: SoakSettings
    models: tuple[ResolvedModel, ...]


def resolve(
    store: Store, release: FleetRelease, ring: Ring, facts: Facts, keys: Sequence[PublicKey]
) -> Resolved:
    """Resolve what a ring of a release asks of a device.

    Raises SignatureError, IntegrityError, NotFoundError, and IncompatibleError if some model has
    no variant that runs here.
    """
    models = tuple(_resolve_model(store, ref, facts, keys) for ref in ring.models)
    entries = tuple(model.entry for model in models)
    return Resolved(Slot(release.fleet, release.generation, ring.name, entries), ring.soak, models)


def _resolve_model(
    store: Store, ref: ModelRef, facts: Facts, keys: Sequence[PublicKey]
) -> ResolvedModel:
    repository = store.repository(ref.repository)
    index_descriptor, data = repository.read_manifest(str(ref.digest))
    signature.verify(repository, index_descriptor, keys)
    index = parse_manifest(data)
    if not isinstance(index, Index):
        raise IntegrityError(f"{ref.repository}@{ref.digest} is not an image index")
    variant = _require(select(index.manifests, facts), ref, facts)
    manifest_bytes, manifest = _read_manifest(repository, variant.descriptor, keys)
    entry = SlotModel(
        ref.name,
        ref.version,
        ref.digest,
        variant.descriptor.digest,
        variant.target,
        variant.engine,
        variant.precision,
    )
    files = model_files(manifest)
    return ResolvedModel(
        entry, variant, ref.repository, manifest_bytes, _unique(manifest.blobs), files
    )


def _read_manifest(
    repository: Repository, descriptor: Descriptor, keys: Sequence[PublicKey]
) -> tuple[bytes, Manifest]:
    _, data = repository.read_manifest(str(descriptor.digest))
    check_bytes(data, descriptor)
    signature.verify(repository, descriptor, keys)
    manifest = parse_manifest(data)
    if not isinstance(manifest, Manifest):
        raise IntegrityError(f"{repository.name}@{descriptor.digest} is not a model's manifest")
    return data, manifest


def _require(choice: Choice, ref: ModelRef, facts: Facts) -> Variant:
    if choice.chosen is not None:
        return choice.chosen
    reasons = "".join(f"\n  - {item.target}: {item.reason}" for item in choice.rejected)
    device = facts.target or f"{facts.family} {facts.os}/{facts.architecture}"
    raise IncompatibleError(
        f"no variant of {ref.name} {ref.version} runs on this device ({device}):{reasons}",
        hint="add a Target for this hardware to the fleet, or correct `facts` in device.yaml",
    )


def _unique(blobs: Sequence[Descriptor]) -> tuple[Descriptor, ...]:
    return tuple({blob.digest: blob for blob in blobs}.values())
