"""Read what the registry says, in as few requests as a plan can do with."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from edgectl.errors import IntegrityError, NotFoundError
from edgectl.oci.descriptor import Manifest, parse_manifest
from edgectl.plan.observed import APPLIED_TYPE, Applied, Observed, ObservedModel, applied_tag

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from edgectl.desired import DesiredModel
    from edgectl.digest import Digest
    from edgectl.oci.store import Repository, Store
    from edgectl.trust.release import FleetRelease

_PARALLEL_REQUESTS = 8
_AGAIN = "delete the tag {tag}, or the damaged blob; the next apply writes it again"
_MAX_RECORD_BYTES = 1 << 20


def observe(
    store: Store, models: Iterable[DesiredModel], releases: Mapping[str, FleetRelease]
) -> Observed:
    """Observe every model version that is desired. Raises the store's errors."""
    models = tuple(models)
    if store.location.is_layout:
        found = [observe_model(store, model) for model in models]
    else:
        with ThreadPoolExecutor(_PARALLEL_REQUESTS) as pool:
            found = list(pool.map(lambda model: observe_model(store, model), models))
    return Observed({model.key: seen for model, seen in zip(models, found, strict=True)}, releases)


def observe_model(store: Store, model: DesiredModel) -> ObservedModel:
    """One model version: its tags, and the record that apply left of it."""
    repository = store.repository(model.repository)
    tags = repository.tags()
    marker = applied_tag(model.version)
    cached = frozenset(tag.removeprefix("cache-") for tag in tags if tag.startswith("cache-"))
    if marker not in tags:
        return ObservedModel(cached=cached)
    images = store.repository(model.image_repository)
    try:
        applied = read_applied(repository, marker)
    except NotFoundError:  # the tag is there and what it names is not: apply makes it again
        return ObservedModel(cached=cached)
    return ObservedModel(
        applied=applied,
        index=_tagged(repository, model.version, tags),
        image=_tagged(images, model.version, images.tags() if store.location.is_layout else {}),
        cached=cached,
    )


def read_applied(repository: Repository, tag: str) -> Applied:
    """Read an applied record; raises IntegrityError if something else is under the tag."""
    _, data = repository.read_manifest(tag)
    manifest = parse_manifest(data)
    if not isinstance(manifest, Manifest) or manifest.artifact_type != APPLIED_TYPE:
        raise IntegrityError(
            f"{repository.name}:{tag} is not an applied record",
            hint=_AGAIN.format(tag=tag),
        )
    if manifest.config.size > _MAX_RECORD_BYTES:
        raise IntegrityError(f"{repository.name}:{tag} is larger than an applied record can be")
    try:
        return Applied.from_bytes(b"".join(repository.read_blob(manifest.config)))
    except IntegrityError as error:
        raise IntegrityError(
            f"{repository.name}:{tag}: {error.message}", hint=_AGAIN.format(tag=tag)
        ) from error


def _tagged(repository: Repository, tag: str, tags: Mapping[str, Digest | None]) -> Digest | None:
    """The digest of a tag, from the listing where that has it."""
    known = tags.get(tag)
    if known is not None:
        return known
    descriptor = repository.resolve(tag)
    return None if descriptor is None else descriptor.digest
