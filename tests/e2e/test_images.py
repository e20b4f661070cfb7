"""Debian's skopeo and docker accept what we assemble."""

from __future__ import annotations

import json
import subprocess
import tarfile
from typing import TYPE_CHECKING

import pytest

from edgectl.digest import Digest
from edgectl.oci.descriptor import Platform
from edgectl.oci.image import MultiArchImage, Variant, assemble_model_image, push_image
from edgectl.oci.layout import LayoutStore
from tests.support.dockerd import Dockerd

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.docker_registry import DockerRegistry

TARGETS = {
    "intel-nuc": Platform("linux", "amd64"),
    "raspberry-pi-5": Platform("linux", "arm64", "v8"),
    "jetson-orin-nano": Platform("linux", "arm64", "v8"),
}


def skopeo(*arguments: str) -> str:
    result = subprocess.run(
        ["skopeo", "--insecure-policy", *arguments], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.fixture
def image(tmp_path: Path) -> MultiArchImage:
    variants = []
    for target, platform in TARGETS.items():
        model = tmp_path / f"{target}.onnx"
        model.write_bytes(target.encode() * 10_000)
        variants.append(Variant(target, platform, {"model.onnx": model}))
    return assemble_model_image(
        "digits", variants, tmp_path, labels={"org.opencontainers.image.version": "1.0.0"}
    )


@pytest.fixture
def layout(tmp_path: Path, image: MultiArchImage) -> str:
    """skopeo's name of the image in a layout."""
    store = LayoutStore(tmp_path / "registry")
    push_image(store.repository("images/digits"), image, tag="1.0.0")
    return f"oci:{tmp_path}/registry/images/digits:1.0.0"


@pytest.mark.parametrize("architecture", ["amd64", "arm64"])
def test_skopeo_inspects_the_layout(layout: str, architecture: str) -> None:
    told = json.loads(skopeo("--override-arch", architecture, "inspect", layout))
    assert told["Architecture"] == architecture
    assert told["Labels"] == {"org.opencontainers.image.version": "1.0.0"}
    assert len(told["Layers"]) == sum(p.architecture == architecture for p in TARGETS.values())


def test_skopeo_copies_all_platforms_with_their_digests(
    layout: str, image: MultiArchImage, docker_registry: DockerRegistry, tmp_path: Path
) -> None:
    remote = f"docker://{docker_registry.host}/images/digits:1.0.0"
    insecure = "--dest-tls-verify=false"
    skopeo("copy", "--all", "--preserve-digests", insecure, layout, remote)
    repository = docker_registry.store().repository("images/digits")
    assert repository.resolve("1.0.0") == image.descriptor
    back = f"oci:{tmp_path}/back:1.0.0"
    skopeo("copy", "--all", "--preserve-digests", "--src-tls-verify=false", remote, back)
    assert LayoutStore(tmp_path).repository("back").resolve("1.0.0") == image.descriptor


@pytest.mark.parametrize("architecture", ["amd64", "arm64"])
def test_docker_loads_the_image(layout: str, tmp_path: Path, architecture: str) -> None:
    archive = tmp_path / "image.tar"
    destination = f"docker-archive:{archive}:digits:1.0.0"
    skopeo("--override-arch", architecture, "copy", layout, destination)
    with Dockerd() as daemon:
        loaded = daemon.docker("load", "-i", str(archive))
        assert "digits:1.0.0" in loaded.stdout
        told = json.loads(daemon.docker("image", "inspect", "digits:1.0.0").stdout)[0]
        assert (told["Os"], told["Architecture"]) == ("linux", architecture)
        daemon.docker("create", "--name", "unpacked", "digits:1.0.0", "/none")
        daemon.docker("cp", "unpacked:/models", str(tmp_path / "models"))
    found = {path.name for path in (tmp_path / "models" / "digits").iterdir()}
    wanted = {name for name, p in TARGETS.items() if p.architecture == architecture}
    assert found == wanted
    for target in wanted:
        model = tmp_path / "models" / "digits" / target / "model.onnx"
        assert model.read_bytes() == target.encode() * 10_000


def test_layers_unpack_with_gnu_tar(image: MultiArchImage, tmp_path: Path) -> None:
    layer = image.images[0].layers[0]
    assert layer.path is not None
    (tmp_path / "out").mkdir()
    subprocess.run(["tar", "-xf", str(layer.path), "-C", str(tmp_path / "out")], check=True)
    model = tmp_path / "out" / "models" / "digits" / "intel-nuc" / "model.onnx"
    assert Digest.of_file(model) == Digest.of_file(tmp_path / "intel-nuc.onnx")
    with tarfile.open(layer.path) as tar:
        assert all(entry.isfile() or entry.isdir() for entry in tar)
