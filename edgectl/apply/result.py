"""What a step left behind, in the registry and on this machine, and how it is found again.

A step's cache tag points at a signed record that names the step by its key: of what a builder
made, a manifest over the files; of an artifact, an index over it, which keeps a registry's garbage
collection from taking what only an earlier release names.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from edgectl.digest import Digest, canonical_json
from edgectl.errors import NotFoundError, SignatureError
from edgectl.oci.descriptor import TITLE, Descriptor, Index, Manifest, parse_manifest
from edgectl.trust import signature

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from edgectl.oci.store import Repository
    from edgectl.plan.step import Step
    from edgectl.trust.keys import PublicKey

STEP_TYPE = "application/vnd.edgectl.step.v1+json"
STEP_KEY = "dev.edgectl.step"
"""Annotation of a record: the key of the step that it is of."""
_FILE_TYPE = "application/octet-stream"
_MAX_RECORD_BYTES = 4 << 20


@dataclass(frozen=True, slots=True)
class StepResult:
    """The result of one step."""

    manifest: Descriptor
    """The artifact; of what a builder made, the record of its files."""
    files: Mapping[str, Descriptor] = field(default_factory=dict)
    """Role to a blob of the step's repository; the files of a directory have roles of the form
    `role/relative/path`."""
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def tree(self, role: str) -> Descriptor | dict[str, Descriptor]:
        """What was made for a role: a file, or a directory's files by relative path; empty if
        nothing was."""
        if role in self.files:
            return self.files[role]
        prefix = f"{role}/"
        return {
            name.removeprefix(prefix): file
            for name, file in self.files.items()
            if name.startswith(prefix)
        }


def load_result(
    repository: Repository, step: Step, accepted: Sequence[PublicKey]
) -> StepResult | None:
    """The result of a step that was run before, anywhere; None if it has to be made.

    Whoever can push could leave a result, or point the tag of one step at that of another: only a
    record counts that an accepted key signed and that names this step, and only while what it
    names is there. Raises IntegrityError if bytes of a record or its signature are damaged.
    """
    found = repository.resolve(step.cache_tag)
    if found is None:
        return None
    try:
        signature.verify(repository, found, accepted)
        _, data = repository.read_manifest(str(found.digest))
        record = parse_manifest(data)
        if (record.artifact_type, record.annotations.get(STEP_KEY)) != (STEP_TYPE, step.key):
            return None
        return _read(repository, found, record)
    except (SignatureError, NotFoundError):
        return None


def _read(repository: Repository, found: Descriptor, record: Manifest | Index) -> StepResult | None:
    """What a record that is trusted names; None if some of it is gone."""
    if isinstance(record, Index):
        there = [each for each in record.manifests if _is_whole(repository, each)]
        return StepResult(there[0]) if there else None
    if not all(repository.has_blob(layer.digest) for layer in record.layers):
        return None
    metadata = _facts(repository, record.config)
    if metadata is None:
        return None
    files = {layer.annotations.get(TITLE, ""): layer for layer in record.layers}
    return StepResult(found, files, metadata)


def _is_whole(repository: Repository, artifact: Descriptor) -> bool:
    """Whether an artifact and what it names is there. What manifests of an index name, the steps
    that made those manifests see to."""
    if repository.resolve(str(artifact.digest)) is None:
        return False
    manifest = parse_manifest(repository.read_manifest(str(artifact.digest))[1])
    if isinstance(manifest, Index):
        return all(repository.resolve(str(each.digest)) for each in manifest.manifests)
    return all(repository.has_blob(b.digest) for b in (manifest.config, *manifest.layers))


def _facts(repository: Repository, config: Descriptor) -> dict[str, Any] | None:
    """The facts of a record; None if they are not what this edgectl writes."""
    if config.size > _MAX_RECORD_BYTES:
        return None
    try:
        facts = json.loads(b"".join(repository.read_blob(config)))
    except (ValueError, RecursionError):
        return None
    return facts if isinstance(facts, dict) else None


def save_files(
    repository: Repository,
    step: Step,
    outputs: Mapping[str, Path],
    metadata: Mapping[str, Any],
) -> StepResult:
    """Push output files and facts, and tag them last: a tag is there only if all of it is."""
    files = {}
    for role, path in sorted(outputs.items()):
        files[role] = Descriptor(
            _FILE_TYPE, Digest.of_file(path), path.stat().st_size, {TITLE: role}
        )
        repository.push_blob(files[role], path)
    facts = canonical_json(dict(metadata))
    config = Descriptor.of(facts, STEP_TYPE)
    repository.push_blob(config, facts)
    record = Manifest(config, tuple(files.values()), STEP_TYPE, annotations={STEP_KEY: step.key})
    found = repository.push_manifest(record.to_bytes(), record.media_type, tag=step.cache_tag)
    return StepResult(found, files, metadata)


def save_artifact(repository: Repository, step: Step, artifact: Descriptor) -> Descriptor:
    """Record and tag an artifact that a step made; returns the record."""
    bare = Descriptor(artifact.media_type, artifact.digest, artifact.size)
    record = Index((bare,), STEP_TYPE, annotations={STEP_KEY: step.key})
    return repository.push_manifest(record.to_bytes(), record.media_type, tag=step.cache_tag)
