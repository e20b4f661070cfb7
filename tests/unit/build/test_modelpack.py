from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jsonschema
import pytest

from edgectl.build import modelpack
from edgectl.build.modelpack import FILEPATH, Entry, Package, Variant, pack
from edgectl.digest import Digest
from edgectl.engine.signature import ModelSignature, TensorSpec
from edgectl.oci.descriptor import OCI_INDEX, Descriptor, Index, Manifest, Platform, parse_manifest

if TYPE_CHECKING:
    from edgectl.oci.image import MultiArchImage

VECTORS = Path(__file__).parents[2] / "vectors" / "modelpack"
MODEL = Descriptor.of(b"weights", "application/octet-stream", annotations={"step": "file"})
GOLDEN = Descriptor.of(b"golden", "application/octet-stream")
CARD = "# digits 1.0.0\n"
VARIANT = Variant(
    ModelSignature(
        "digits",
        "1.0.0",
        "classification",
        (TensorSpec("image", "FP32", (-1, 1, 8, 8), ({"decode": {"mode": "L"}},)),),
        (TensorSpec("logits", "FP32", (-1, 2), ({"softmax": {}},), ("0", "1")),),
        {"name": "onnxruntime", "version": ">=1.20", "providers": ["CPUExecutionProvider"]},
        {"absolute": 0.5},
    ),
    target="raspberry-pi-5",
    platform=Platform("linux", "arm64", "v8"),
    precision="int8",
    requires={"family": "raspberry-pi", "latency": 0.02},
    description="Reads digits.",
    license="Apache-2.0",
)


@pytest.fixture
def package() -> Package:
    return pack(VARIANT, model=MODEL, golden=GOLDEN, card=CARD)


def config_of(package: Package) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(package.blobs[package.manifest.config.digest])
    return value


def test_the_layers_are_raw_files_with_their_paths(package: Package) -> None:
    assert [
        (layer.annotations[FILEPATH], layer.media_type) for layer in package.manifest.layers
    ] == [
        ("model.onnx", "application/vnd.cncf.model.weight.v1.raw"),
        ("signature.json", "application/vnd.cncf.model.weight.config.v1.raw"),
        ("golden.npz", "application/vnd.cncf.model.dataset.v1.raw"),
        ("README.md", "application/vnd.cncf.model.doc.v1.raw"),
    ]
    assert package.manifest.layers[0].digest == MODEL.digest
    assert package.manifest.layers[0].annotations == {
        "org.cncf.model.filepath": "model.onnx",
        "org.opencontainers.image.title": "model.onnx",
    }
    assert package.manifest.artifact_type == "application/vnd.cncf.model.manifest.v1+json"
    assert package.manifest.config.media_type == "application/vnd.cncf.model.config.v1+json"


def test_every_blob_is_there_or_made_here(package: Package) -> None:
    for digest, data in package.blobs.items():
        assert Digest.of(data) == digest
    made = {blob.digest for blob in package.manifest.blobs} - {MODEL.digest, GOLDEN.digest}
    assert made == set(package.blobs)


def test_the_manifest_survives_the_wire(package: Package) -> None:
    parsed = parse_manifest(package.manifest.to_bytes())
    assert isinstance(parsed, Manifest)
    assert parsed.to_bytes() == package.manifest.to_bytes()


@pytest.mark.parametrize(
    "variant",
    [
        VARIANT,
        replace(VARIANT, precision="fp32", description="", license=""),
    ],
    ids=["full", "sparse"],
)
def test_the_config_is_a_modelpack_config(variant: Variant) -> None:
    schema = json.loads((VECTORS / "config.schema.json").read_text())
    config = config_of(pack(variant, model=MODEL, golden=GOLDEN, card=CARD))
    jsonschema.Draft202012Validator(schema).validate(config)


def test_the_config_names_every_layer_in_order(package: Package) -> None:
    config = config_of(package)
    assert config["modelfs"]["diffIds"] == [str(layer.digest) for layer in package.manifest.layers]
    assert config["config"]["quantization"] == "static-qdq"
    assert config["config"]["capabilities"]["inputTypes"] == ["image"]
    assert "createdAt" not in config["descriptor"]


def test_the_signature_can_be_read_back(package: Package) -> None:
    layer = package.manifest.layers[1]
    assert ModelSignature.from_json(package.blobs[layer.digest]) == VARIANT.signature


def test_the_same_variant_has_the_same_digest(package: Package) -> None:
    again = pack(VARIANT, model=replace(MODEL, annotations={}), golden=GOLDEN, card=CARD)
    assert again.manifest.to_bytes() == package.manifest.to_bytes()
    other = pack(VARIANT, model=Descriptor.of(b"others", "x/y"), golden=GOLDEN, card=CARD)
    assert other.manifest.to_bytes() != package.manifest.to_bytes()


NUC_VARIANT = replace(VARIANT, target="intel-nuc", platform=Platform("linux", "amd64"))


def index_of(*variants: Variant) -> MultiArchImage:
    packages = [pack(each, model=MODEL, golden=GOLDEN, card=CARD) for each in variants]
    entries = [
        Entry(made.manifest, each.platform) for made, each in zip(packages, variants, strict=True)
    ]
    return modelpack.model_index("digits", "1.0.0", entries)


def parsed_index(made: MultiArchImage) -> Index:
    parsed = parse_manifest(made.index)
    assert isinstance(parsed, Index)
    return parsed


def test_the_index_says_what_a_device_chooses_by(package: Package) -> None:
    made = index_of(VARIANT, NUC_VARIANT)
    assert made.index == index_of(NUC_VARIANT, VARIANT).index
    parsed = parsed_index(made)
    assert parsed.media_type == OCI_INDEX
    assert parsed.artifact_type == "application/vnd.edgectl.model.v1+json"
    entries = [each for each in parsed.manifests if "dev.edgectl.target" in each.annotations]
    assert [each.annotations["dev.edgectl.target"] for each in entries] == [
        "intel-nuc",
        "raspberry-pi-5",
    ]
    chosen = entries[1]
    assert chosen.digest == Digest.of(package.manifest.to_bytes())
    assert chosen.platform == Platform("linux", "arm64", "v8")
    assert chosen.annotations["dev.edgectl.engine"] == "onnxruntime"
    assert chosen.annotations["dev.edgectl.precision"] == "int8"
    requires = json.loads(chosen.annotations["dev.edgectl.requires"])
    size = sum(layer.size for layer in package.manifest.layers)
    assert requires == {"family": "raspberry-pi", "latency": 0.02, "size": size}


def test_the_first_entry_of_a_platform_is_an_image_of_its_files(package: Package) -> None:
    jetson = replace(VARIANT, target="jetson-orin-nano")
    made = index_of(VARIANT, NUC_VARIANT, jetson)
    parsed = parsed_index(made)
    assert ["dev.edgectl.target" in each.annotations for each in parsed.manifests] == [
        *(False, False),
        *(True, True, True),
    ]
    # skopeo 1.9 drops it when it copies an index, whose digest would be another then.
    assert {each.artifact_type for each in parsed.manifests} == {None}
    amd64, arm64 = made.images
    assert [each.digest for each in parsed.manifests[:2]] == [
        amd64.descriptor.digest,
        arm64.descriptor.digest,
    ]
    assert [each.platform for each in parsed.manifests[:2]] == [
        NUC_VARIANT.platform,
        VARIANT.platform,
    ]
    overview = parse_manifest(arm64.manifest)
    assert isinstance(overview, Manifest)
    assert overview.config.media_type == "application/vnd.oci.image.config.v1+json"
    files = {layer.annotations[FILEPATH]: layer.digest for layer in overview.layers}
    assert files["model.onnx"] == MODEL.digest
    # The two targets differ in nothing that is in a file: what they share is listed once.
    assert len(overview.layers) == len(package.manifest.layers)
    config = json.loads(arm64.config)
    assert config["architecture"] == "arm64"
    assert config["config"]["Labels"]["dev.edgectl.targets"] == "jetson-orin-nano,raspberry-pi-5"
    assert config["rootfs"]["diff_ids"] == [str(layer.digest) for layer in overview.layers]
    assert len(config["history"]) == len(overview.layers)
