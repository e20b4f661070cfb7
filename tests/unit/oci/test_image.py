from __future__ import annotations

import json
import tarfile
from typing import TYPE_CHECKING

import pytest

from edgectl.digest import Digest
from edgectl.oci.descriptor import (
    OCI_CONFIG,
    OCI_LAYER_GZIP,
    Descriptor,
    Index,
    Manifest,
    Platform,
    parse_manifest,
)
from edgectl.oci.image import Base, Layer, Variant, assemble_model_image, push_image
from edgectl.oci.layout import LayoutStore
from edgectl.oci.tar import build_layer
from edgectl.oci.transfer import walk

if TYPE_CHECKING:
    from pathlib import Path

AMD64 = Platform("linux", "amd64")
ARM64 = Platform("linux", "arm64", "v8")


@pytest.fixture
def variants(tmp_path: Path) -> list[Variant]:
    made = []
    for target, platform in (
        ("raspberry-pi-5", ARM64),
        ("intel-nuc", AMD64),
        ("jetson-orin-nano", ARM64),
    ):
        model = tmp_path / f"{target}.onnx"
        model.write_bytes(target.encode())
        made.append(Variant(target, platform, {"model.onnx": model}))
    return made


def test_one_image_per_platform_and_one_layer_per_target(
    variants: list[Variant], tmp_path: Path
) -> None:
    image = assemble_model_image("digits", variants, tmp_path)
    index = parse_manifest(image.index)
    assert isinstance(index, Index)
    assert [item.platform for item in index.manifests] == [AMD64, ARM64]
    assert [item.digest for item in index.manifests] == [
        Digest.of(one.manifest) for one in image.images
    ]
    names = []
    for one in image.images:
        config = json.loads(one.config)
        assert (config["os"], config["architecture"]) == (
            one.platform.os,
            one.platform.architecture,
        )
        assert config.get("variant") == one.platform.variant
        assert config["created"] == "1970-01-01T00:00:00Z"
        assert config["rootfs"]["diff_ids"] == [str(layer.diff_id) for layer in one.layers]
        assert len(config["history"]) == len(one.layers)
        manifest = parse_manifest(one.manifest)
        assert isinstance(manifest, Manifest)
        assert manifest.config == Descriptor.of(one.config, OCI_CONFIG)
        assert manifest.layers == tuple(layer.descriptor for layer in one.layers)
        for layer in one.layers:
            assert layer.path is not None
            with tarfile.open(layer.path) as tar:
                names += [entry.name for entry in tar if entry.isfile()]
    assert names == [
        "models/digits/intel-nuc/model.onnx",
        "models/digits/jetson-orin-nano/model.onnx",
        "models/digits/raspberry-pi-5/model.onnx",
    ]


def test_the_same_variants_give_the_same_digest(variants: list[Variant], tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    first = assemble_model_image("digits", variants, tmp_path)
    assert assemble_model_image("digits", reversed(variants), other).index == first.index


def test_targets_have_to_differ(variants: list[Variant], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="intel-nuc"):
        assemble_model_image("digits", [variants[1], variants[1]], tmp_path)
    with pytest.raises(ValueError, match="variants"):
        assemble_model_image("digits", [], tmp_path)


def test_base_and_engine_layers_go_below(variants: list[Variant], tmp_path: Path) -> None:
    base_layer = Layer(Descriptor(OCI_LAYER_GZIP, Digest.of(b"b"), 7), Digest.of(b"base"), "base")
    engine, diff_id = build_layer({"/opt/engine": tmp_path / "intel-nuc.onnx"}, tmp_path / "engine")
    engine_layer = Layer(engine, diff_id, "engine", tmp_path / "engine")
    base = Base((base_layer,), {"Env": ["PATH=/bin"], "Labels": {"os": "debian"}})
    image = assemble_model_image(
        "digits",
        variants,
        tmp_path,
        labels={"org.opencontainers.image.title": "digits"},
        bases={AMD64: base},
        extra_layers={AMD64: [engine_layer]},
    )
    amd64, arm64 = image.images
    assert [layer.created_by for layer in amd64.layers] == [
        "base",
        "engine",
        "edgectl: digits for intel-nuc",
    ]
    config = json.loads(amd64.config)["config"]
    assert config["Env"] == ["PATH=/bin"]
    assert config["Labels"] == {"os": "debian", "org.opencontainers.image.title": "digits"}
    assert len(arm64.layers) == 2
    assert base.config["Labels"] == {"os": "debian"}


def test_push_image(variants: list[Variant], tmp_path: Path) -> None:
    repository = LayoutStore(tmp_path / "registry").repository("images/digits")
    image = assemble_model_image("digits", variants, tmp_path, compress=True)
    pushed = push_image(repository, image, tag="1.0.0")
    assert pushed == image.descriptor
    assert repository.resolve("1.0.0") == pushed
    nodes = list(walk(repository, pushed))
    blobs = [node.descriptor for node in nodes if node.manifest is None]
    assert len(blobs) == 5
    for blob in blobs:
        assert b"".join(repository.read_blob(blob))
