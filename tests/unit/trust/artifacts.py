"""A small artifact of every part: an index of two manifests with shared and own layers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgectl.oci.descriptor import (
    EMPTY_CONFIG,
    OCI_INDEX,
    OCI_MANIFEST,
    Descriptor,
    Index,
    Manifest,
)

if TYPE_CHECKING:
    from edgectl.oci.store import Repository

TAG = "1.0.0"


def push_layer(repository: Repository, data: bytes, path: str) -> Descriptor:
    layer = Descriptor.of(
        data,
        "application/vnd.cncf.model.weight.v1.raw",
        annotations={"org.cncf.model.filepath": path},
    )
    repository.push_blob(layer, data)
    return layer


def push_manifest(repository: Repository, *layers: Descriptor) -> Descriptor:
    repository.push_blob(EMPTY_CONFIG, b"{}")
    manifest = Manifest(EMPTY_CONFIG, layers, artifact_type="application/vnd.test")
    return repository.push_manifest(manifest.to_bytes(), OCI_MANIFEST)


def push_model(repository: Repository) -> Descriptor:
    """Push an index of two manifests; returns its descriptor."""
    shared = push_layer(repository, b"shared signature of the model", "signature.json")
    manifests = [
        push_manifest(repository, push_layer(repository, weights, "model.onnx"), shared)
        for weights in (b"weights for a nuc", b"weights for a raspberry pi")
    ]
    index = Index(tuple(manifests), artifact_type="application/vnd.edgectl.model.v1+json")
    return repository.push_manifest(index.to_bytes(), OCI_INDEX, tag=TAG)
