"""What a step left behind, in the registry and on this machine, and how it is found again."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from edgectl.digest import Digest, canonical_json
from edgectl.errors import IntegrityError
from edgectl.oci.descriptor import Descriptor, Manifest, parse_manifest

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from edgectl.oci.store import Repository
    from edgectl.plan.step import Step

STEP_TYPE = "application/vnd.edgectl.step.v1+json"
_FILE_TYPE = "application/octet-stream"
_TITLE = "org.opencontainers.image.title"
_MAX_RECORD_BYTES = 4 << 20


@dataclass(frozen=True, slots=True)
class StepResult:
    """The result of one step."""

    manifest: Descriptor
    """What the step's cache tag points at: the artifact itself, or a record of files."""
    files: Mapping[str, Descriptor] = field(default_factory=dict)
    """Role to a blob of the step's repository."""
    metadata: Mapping[str, Any] = field(default_factory=dict)


def load_result(repository: Repository, step: Step) -> StepResult | None:
    """The result of a step that was run before, anywhere; None if there is none."""
    if repository.resolve(step.cache_tag) is None:
        return None
    descriptor, data = repository.read_manifest(step.cache_tag)
    manifest = parse_manifest(data)
    if not isinstance(manifest, Manifest) or manifest.artifact_type != STEP_TYPE:
        return StepResult(descriptor)
    if manifest.config.size > _MAX_RECORD_BYTES:
        raise IntegrityError(f"{repository.name}:{step.cache_tag}: the record is too large")
    record = json.loads(b"".join(repository.read_blob(manifest.config)))
    files = {layer.annotations[_TITLE]: layer for layer in manifest.layers}
    return StepResult(descriptor, files, record["metadata"])


def save_result(
    repository: Repository,
    step: Step,
    outputs: Mapping[str, Path],
    metadata: Mapping[str, Any],
) -> StepResult:
    """Push output files and facts, and tag them last: a tag is there only if all of it is."""
    files = {}
    for role, path in sorted(outputs.items()):
        files[role] = Descriptor(
            _FILE_TYPE, Digest.of_file(path), path.stat().st_size, {_TITLE: role}
        )
        repository.push_blob(files[role], path)
    record = canonical_json({"kind": step.kind, "key": step.key, "metadata": dict(metadata)})
    config = Descriptor.of(record, STEP_TYPE)
    repository.push_blob(config, record)
    manifest = Manifest(config, tuple(files.values()), artifact_type=STEP_TYPE)
    descriptor = repository.push_manifest(
        manifest.to_bytes(), manifest.media_type, tag=step.cache_tag
    )
    return StepResult(descriptor, files, metadata)
