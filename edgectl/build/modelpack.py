"""ModelPack: a built variant as an OCI artifact that any ModelPack tool reads. Pure.

Follows the CNCF Model Specification (docs/spec.md, docs/config.md, docs/annotations.md of
github.com/modelpack/model-spec): raw, uncompressed files as layers, each with its path.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from edgectl.digest import Digest, canonical_json
from edgectl.engine.session import MODEL_FILES
from edgectl.engine.transforms import encoded_kind
from edgectl.oci.descriptor import TITLE, VERSION, Descriptor, Index, Manifest, Platform
from edgectl.oci.image import Image, Layer, MultiArchImage, build_image

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from edgectl.engine.signature import ModelSignature

MANIFEST_TYPE = "application/vnd.cncf.model.manifest.v1+json"
CONFIG_TYPE = "application/vnd.cncf.model.config.v1+json"
WEIGHT_TYPE = "application/vnd.cncf.model.weight.v1.raw"
WEIGHT_CONFIG_TYPE = "application/vnd.cncf.model.weight.config.v1.raw"
CODE_TYPE = "application/vnd.cncf.model.code.v1.raw"
DATASET_TYPE = "application/vnd.cncf.model.dataset.v1.raw"
DOC_TYPE = "application/vnd.cncf.model.doc.v1.raw"
INDEX_TYPE = "application/vnd.edgectl.model.v1+json"
FILEPATH = "org.cncf.model.filepath"
_TARGET = "dev.edgectl.target"

_INPUT_TYPES = {"image": "image", "audio": "audio", "text": "text"}
"""Kind of encoded input to what docs/config.md calls it; anything else is `other`."""
_FORMATS = {
    "onnxruntime": "onnx", "openvino": "openvino", "tensorrt": "onnx", "litert": "tflite",
    "tflm": "tflite", "coreml": "coreml",
}  # fmt: skip
"""Engine to the format of its model, as `config.format` names it."""


@dataclass(frozen=True, slots=True)
class Variant:
    """What a package says of itself, beside its files."""

    signature: ModelSignature
    target: str
    platform: Platform
    precision: str
    requires: Mapping[str, Any]
    """What a device must have, without the size, which packaging adds."""
    description: str = ""
    license: str = ""


@dataclass(frozen=True, slots=True)
class Package:
    """A manifest, and those of its blobs that are made here; the others are there already."""

    manifest: Manifest
    blobs: Mapping[Digest, bytes]
    """Config, signature.json and README.md."""


def pack(
    variant: Variant,
    *,
    model: Descriptor | Mapping[str, Descriptor],
    golden: Descriptor,
    card: str,
    assets: Mapping[str, Descriptor] | None = None,
) -> Package:
    """Package a built model.

    `model`, `golden` and `assets` are any descriptors of the files' blobs: of a model that is one
    file, or of several by the path that each has beside the others. `card` is the text of its
    README.md.

    The same arguments give the same digest: nothing measured and no clock goes in.
    """
    signature = canonical_json(variant.signature.to_json())
    readme = card.encode()
    made = {Digest.of(data): data for data in (signature, readme)}
    if isinstance(model, Descriptor):
        model = {MODEL_FILES[str(variant.signature.engine["name"])][0]: model}
    layers = (
        *(_layer(file, _media_type(path), path) for path, file in sorted(model.items())),
        *(_layer(file, WEIGHT_CONFIG_TYPE, path) for path, file in sorted((assets or {}).items())),
        _layer(Descriptor.of(signature, WEIGHT_CONFIG_TYPE), WEIGHT_CONFIG_TYPE, "signature.json"),
        _layer(golden, DATASET_TYPE, "golden.npz"),
        _layer(Descriptor.of(readme, DOC_TYPE), DOC_TYPE, "README.md"),
    )
    config = canonical_json(_config(variant, layers))
    manifest = Manifest(
        Descriptor.of(config, CONFIG_TYPE),
        layers,
        artifact_type=MANIFEST_TYPE,
        annotations=_annotations(variant, layers),
    )
    return Package(manifest, made | {Digest.of(config): config})


@dataclass(frozen=True, slots=True)
class Entry:
    """A package in its model's index."""

    manifest: Manifest
    platform: Platform

    @property
    def target(self) -> str:
        """The name of the target that it was built for."""
        return self.manifest.annotations[_TARGET]

    @property
    def descriptor(self) -> Descriptor:
        """What the index says of it: all that a device needs for choosing."""
        return Descriptor.of(
            self.manifest.to_bytes(),
            self.manifest.media_type,
            annotations=self.manifest.annotations,
            platform=self.platform,
        )


def model_index(name: str, version: str, entries: Iterable[Entry]) -> MultiArchImage:
    """The index of one model version: an overview per platform, then the entries by target.

    Tools that know only images take the first entry of their platform, and refuse a ModelPack
    configuration (docs/adr/0014-overviews.md). They find the overview: an image configuration
    whose layers are the files of the platform's entries, which are there already.
    """
    ordered = sorted(entries, key=lambda entry: entry.target)
    titles = {
        TITLE: name,
        VERSION: version,
    }
    platforms = sorted({entry.platform for entry in ordered}, key=str)
    overviews = tuple(
        _overview(platform, [entry for entry in ordered if entry.platform == platform], titles)
        for platform in platforms
    )
    index = Index(
        (*(overview.descriptor for overview in overviews), *(each.descriptor for each in ordered)),
        artifact_type=INDEX_TYPE,
        annotations=titles,
    )
    return MultiArchImage(overviews, index.to_bytes())


def _overview(platform: Platform, entries: Sequence[Entry], titles: Mapping[str, str]) -> Image:
    layers: dict[Digest, Layer] = {}
    for entry in entries:
        for file in entry.manifest.layers:
            history = f"edgectl: {file.annotations[FILEPATH]} for {entry.target}"
            layers.setdefault(file.digest, Layer(file, file.digest, history))
    targets = ",".join(entry.target for entry in entries)
    labels = {**titles, "dev.edgectl.targets": targets}
    return build_image(platform, tuple(layers.values()), {"Labels": labels}, titles)


def is_weight(path: str) -> bool:
    """Whether a file of a model holds weights: `model.onnx`, `model.mlpackage/…`."""
    return path.startswith("model.")


def _media_type(path: str) -> str:
    if is_weight(path):
        return WEIGHT_TYPE
    return WEIGHT_CONFIG_TYPE if path.endswith(".json") else CODE_TYPE


def _layer(file: Descriptor, media_type: str, path: str) -> Descriptor:
    return replace(
        file,
        media_type=media_type,
        annotations={FILEPATH: path, TITLE: path},
        artifact_type=None,
        platform=None,
    )


def _annotations(variant: Variant, layers: tuple[Descriptor, ...]) -> dict[str, str]:
    engine = variant.signature.engine
    requires = dict(variant.requires) | {"size": sum(layer.size for layer in layers)}
    return {
        _TARGET: variant.target,
        "dev.edgectl.engine": str(engine["name"]),
        "dev.edgectl.engine-version": str(engine["version"]),
        "dev.edgectl.precision": variant.precision,
        "dev.edgectl.requires": canonical_json(requires).decode(),
    }


def _config(variant: Variant, layers: tuple[Descriptor, ...]) -> dict[str, Any]:
    """The config object (docs/config.md). `createdAt` is left out: it would change the digest."""
    signature = variant.signature
    descriptor: dict[str, Any] = {"name": signature.name, "version": signature.version}
    if variant.description:
        descriptor["description"] = variant.description
    if variant.license:
        descriptor["licenses"] = [variant.license]
    takes = {_INPUT_TYPES.get(encoded_kind(tensor) or "", "other") for tensor in signature.inputs}
    engine = str(signature.engine["name"])
    config: dict[str, Any] = {
        "format": _FORMATS[engine],
        "precision": variant.precision,
        "capabilities": {
            "inputTypes": sorted(takes),
            "outputTypes": ["other"],
        },
    }
    if variant.precision == "int8":
        config["quantization"] = "static-qdq" if _FORMATS[engine] == "onnx" else "int8"
    return {
        "descriptor": descriptor,
        "config": config,
        "modelfs": {"type": "layers", "diffIds": [str(layer.digest) for layer in layers]},
    }
