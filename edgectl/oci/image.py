"""Assemble container images without a daemon: OCI image-spec v1.1, config.md and manifest.md.

An image of models has no command and, without a base, nothing to run it with: it is mounted as a
Kubernetes image volume, or copied from with `COPY --from`. Each target is a layer of its own, so
that targets share nothing they do not have in common, and a device's runtime fetches what
changed. With a base and engine layers below, the same assembly makes an image that runs.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from edgectl.digest import Digest, canonical_json
from edgectl.oci.descriptor import (
    OCI_CONFIG,
    OCI_INDEX,
    OCI_MANIFEST,
    Descriptor,
    Index,
    Manifest,
    Platform,
)
from edgectl.oci.tar import build_layer, source_date_epoch

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from edgectl.oci.store import Repository


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer: the blob, where its bytes are, and the digest of its uncompressed archive."""

    descriptor: Descriptor
    diff_id: Digest
    created_by: str
    path: Path | None = None
    """None if the registry has the blob already, as that of a base."""


@dataclass(frozen=True, slots=True)
class Base:
    """What an image stands on: layers that a registry has, and the configuration to go on from."""

    layers: tuple[Layer, ...]
    config: Mapping[str, Any] = field(default_factory=dict)
    """The `config` object of the base's image configuration: Env, Entrypoint, User, …"""


@dataclass(frozen=True, slots=True)
class Variant:
    """One target's model: what goes to `/models/<model>/<target>/`."""

    target: str
    platform: Platform
    files: Mapping[str, Path]
    """Path below the target's directory -> file."""


@dataclass(frozen=True, slots=True)
class Image:
    """The image of one platform, ready to push."""

    platform: Platform
    layers: tuple[Layer, ...]
    config: bytes
    manifest: bytes

    @property
    def descriptor(self) -> Descriptor:
        """The image's manifest, as an index lists it."""
        return Descriptor.of(self.manifest, OCI_MANIFEST, platform=self.platform)


@dataclass(frozen=True, slots=True)
class MultiArchImage:
    """One image per platform, and the index over them."""

    images: tuple[Image, ...]
    index: bytes

    @property
    def descriptor(self) -> Descriptor:
        """The index."""
        return Descriptor.of(self.index, OCI_INDEX)


def assemble_model_image(
    model: str,
    variants: Iterable[Variant],
    directory: Path,
    *,
    annotations: Mapping[str, str] | None = None,
    labels: Mapping[str, str] | None = None,
    bases: Mapping[Platform, Base] | None = None,
    extra_layers: Mapping[Platform, Sequence[Layer]] | None = None,
    compress: bool = False,
) -> MultiArchImage:
    """Assemble the image index of one model version; layers are written into `directory`.

    Every platform gets one image with the variants of all its targets, sorted by target, on top
    of its base and its extra layers where there are any. The result depends on nothing but the
    arguments and `SOURCE_DATE_EPOCH`. Raises ValueError if there is no variant, or a target
    twice, and what `build_layer` does.
    """
    chosen = sorted(variants, key=lambda variant: variant.target)
    targets = [variant.target for variant in chosen]
    if not chosen or len(set(targets)) != len(targets):
        raise ValueError(f"an image needs variants of different targets, not {targets}")
    images = []
    for platform in sorted({variant.platform for variant in chosen}, key=str):
        base = (bases or {}).get(platform)
        own = [
            _variant_layer(model, variant, directory, compress=compress)
            for variant in chosen
            if variant.platform == platform
        ]
        below = (*(base.layers if base else ()), *(extra_layers or {}).get(platform, ()))
        config = {**(base.config if base else {})}
        if labels:
            config["Labels"] = {**config.get("Labels", {}), **labels}
        images.append(build_image(platform, (*below, *own), config, annotations or {}))
    index = Index(tuple(image.descriptor for image in images), annotations=annotations or {})
    return MultiArchImage(tuple(images), index.to_bytes())


def build_image(
    platform: Platform,
    layers: Sequence[Layer],
    config: Mapping[str, Any],
    annotations: Mapping[str, str],
) -> Image:
    """The configuration and manifest of an image made of layers, bottom first."""
    created = datetime.fromtimestamp(source_date_epoch(), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    value = {
        **platform.to_json(),
        "created": created,
        "config": dict(config),
        "rootfs": {"type": "layers", "diff_ids": [str(layer.diff_id) for layer in layers]},
        "history": [{"created": created, "created_by": layer.created_by} for layer in layers],
    }
    data = canonical_json(value)
    manifest = Manifest(
        Descriptor.of(data, OCI_CONFIG),
        tuple(layer.descriptor for layer in layers),
        annotations=annotations,
    )
    return Image(platform, tuple(layers), data, manifest.to_bytes())


def push_image(
    repository: Repository, image: MultiArchImage, *, tag: str | None = None
) -> Descriptor:
    """Push layers, configurations, manifests, and last the index, under a tag if one is given."""
    for platform_image in image.images:
        for layer in platform_image.layers:
            if layer.path is not None:
                repository.push_blob(layer.descriptor, layer.path)
        config = platform_image.config
        repository.push_blob(Descriptor.of(config, OCI_CONFIG), config)
        repository.push_manifest(platform_image.manifest, OCI_MANIFEST)
    return repository.push_manifest(image.index, OCI_INDEX, tag=tag)


def _variant_layer(model: str, variant: Variant, directory: Path, *, compress: bool) -> Layer:
    root = f"/models/{model}/{variant.target}"
    files = {f"{root}/{name}": path for name, path in variant.files.items()}
    path = directory / f"{variant.target}.tar"
    descriptor, diff_id = build_layer(files, path, compress=compress)
    return Layer(descriptor, diff_id, f"edgectl: {model} for {variant.target}", path)
