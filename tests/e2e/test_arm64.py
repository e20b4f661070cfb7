"""What is built here for arm64 answers on arm64 as it does here.

Real variants come out of their images and run under emulation in a Debian for arm64: on a
Raspberry Pi's own processors, with the engines' aarch64 wheels. Correctness alone is checked.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tarfile
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from edgectl.digest import Digest
from edgectl.engine.npz import read_npz
from edgectl.oci.descriptor import Descriptor, Index, Manifest, parse_manifest
from edgectl.oci.layout import LayoutRepository, LayoutStore
from tests.support import answers
from tests.support.arm64 import CORTEX_A72, CORTEX_A76, WORK, Arm64
from tests.support.project import REPOSITORY, Project

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

pytestmark = pytest.mark.slow

# The cores of the Jetson and of the phone are of a later design than any that QEMU has; of what
# the targets name, the Cortex-A76 has all.
PROCESSORS = {
    "digits/jetson-orin-nano": CORTEX_A76,
    "digits/raspberry-pi-4": CORTEX_A72,
    "digits/raspberry-pi-5": CORTEX_A76,
    "digits/raspberry-pi-5-openvino": CORTEX_A76,
    "glyphs/android-low": CORTEX_A76,
    "glyphs/raspberry-pi-5": CORTEX_A76,
    "tumour/raspberry-pi-5": CORTEX_A76,
}
FLEETS = {
    "digits": ["jetson-orin-nano", "raspberry-pi-4", "raspberry-pi-5", "raspberry-pi-5-openvino"],
    "glyphs": ["android-low", "raspberry-pi-5"],
    "tumour": ["raspberry-pi-5"],
}
FLEET = """\
---
apiVersion: edgectl.dev/v1alpha1
kind: Fleet
metadata: {{name: {model}}}
spec:
  selector: {{matchLabels: {{model: {model}}}}}
  targets: [{targets}]
  models: [{{name: {model}}}]
  rings: [{{name: all}}]
"""
TOLERANCE = 0.05
"""Of logits that span ten. Sums of integers are the same everywhere; where kernels scale them in
another order, a value may round to the next integer, which is 0.038 in the logits of the glyphs."""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A registry with models for boards and phones, built on this machine."""
    project = Project(tmp_path_factory.mktemp("arm64") / "repo")
    board = (project.root / "targets/raspberry-pi-5.yaml").read_text()
    engine = '    name: onnxruntime\n    version: ">=1.20"\n    providers: [CPUExecutionProvider]\n'
    assert engine in board
    board = board.replace(engine, '    name: openvino\n    version: ">=2024.0"\n    device: CPU\n')
    board = board.replace("name: raspberry-pi-5\n", "name: raspberry-pi-5-openvino\n")
    board = board.replace("precisions: [int8, fp32]", "precisions: [fp32]")
    (project.root / "targets/raspberry-pi-5-openvino.yaml").write_text(board)
    fleets = [FLEET.format(model=m, targets=", ".join(t)) for m, t in FLEETS.items()]
    (project.root / "fleets/shopfloor.yaml").write_text("".join(fleets))
    project.must("apply")
    return project


@pytest.fixture(scope="module")
def work(project: Project, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The layers for arm64 of the models' images, unpacked, with data and edgectl's engines."""
    work = tmp_path_factory.mktemp("work")
    store = LayoutStore(project.root / "registry")
    for model in FLEETS:
        repository = store.repository(f"images/{model}")
        for manifest in manifests(repository):
            for layer in manifest.layers:
                with tarfile.open(blob(project, repository, layer)) as tar:
                    tar.extractall(work, filter="data")
        data = project.root / "data" / model / "1.0.0" / "evaluation.npz"
        (work / "data").mkdir(exist_ok=True)
        shutil.copy(data, work / "data" / f"{model}.npz")
        if (samples := REPOSITORY / "manifests" / "samples" / model).is_dir():
            shutil.copytree(samples, work / "samples" / model)
    unneeded = shutil.ignore_patterns("__pycache__")
    shutil.copytree(REPOSITORY / "edgectl/engine", work / "edgectl/engine", ignore=unneeded)
    shutil.copy(REPOSITORY / "edgectl/__init__.py", work / "edgectl")
    shutil.copy(answers.__file__, work)
    return work


def manifests(repository: LayoutRepository) -> list[Manifest]:
    """Those of version 1.0.0 that say that they are for arm64."""
    index = parse_manifest(repository.read_manifest("1.0.0")[1])
    assert isinstance(index, Index)
    found = []
    for descriptor in index.manifests:
        assert descriptor.platform is not None
        assert descriptor.platform.architecture == "arm64"
        manifest = parse_manifest(repository.read_manifest(str(descriptor.digest))[1])
        assert isinstance(manifest, Manifest)
        found.append(manifest)
    return found


def blob(project: Project, repository: LayoutRepository, descriptor: Descriptor) -> Path:
    layout = project.root / "registry" / repository.name
    return layout / "blobs" / "sha256" / descriptor.digest.hex


@pytest.fixture(scope="module")
def here(work: Path) -> Path:
    """The answers of this machine's engines."""
    return run_here(work, "here", *PROCESSORS)


def run_here(work: Path, output: str, *variants: str, emulator: tuple[str, ...] = ()) -> Path:
    command = [*emulator, sys.executable, "answers.py", ".", output, *variants]
    environment = {**os.environ, "PYTHONPATH": "."}
    done = subprocess.run(command, cwd=work, env=environment, check=False, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()
    return work / output


@pytest.fixture(scope="module")
def there(work: Path) -> Path:
    """The answers of the aarch64 engines."""
    arm64 = Arm64()
    for processor in (CORTEX_A72, CORTEX_A76):
        variants = [name for name, chosen in PROCESSORS.items() if chosen is processor]
        program, output = WORK / "answers.py", WORK / "there"
        arm64.run(processor, work, str(program), str(WORK), str(output), *variants)
    return work / "there"


@pytest.mark.parametrize("variant", PROCESSORS)
def test_the_answers_are_those_of_this_machine(variant: str, here: Path, there: Path) -> None:
    assert_same_answers(variant, here, there)


def test_a_machine_without_vnni_answers_as_an_arm(work: Path, there: Path) -> None:
    """Where products of bytes are summed in 16 bits, int8 for Arm is not evaluated with those."""
    emulator = ("qemu-x86_64-static", "-cpu", "Haswell")
    variant = "digits/raspberry-pi-5"
    assert_same_answers(variant, run_here(work, "haswell", variant, emulator=emulator), there)


def assert_same_answers(variant: str, here: Path, there: Path) -> None:
    wanted, found = read_npz(here / f"{variant}.npz"), read_npz(there / f"{variant}.npz")
    assert set(found) == set(wanted)
    for name, values in wanted.items():
        assert len(values) >= 140
        np.testing.assert_allclose(found[name], values, rtol=0, atol=TOLERANCE)
        np.testing.assert_array_equal(found[name].argmax(axis=1), values.argmax(axis=1))


@pytest.mark.parametrize("variant", PROCESSORS)
def test_a_device_of_arm64_takes_it(variant: str, here: Path, there: Path) -> None:
    """The warm-up of the agent: golden data, and real samples through the declared transforms."""
    host, device = report(here, variant), report(there, variant)
    assert device["problems"] == []
    assert device["ok"]
    assert (host["host"]["architecture"], device["host"]["architecture"]) == ("amd64", "arm64")
    assert device["host"]["engine"] == host["host"]["engine"]
    if (REPOSITORY / "manifests" / "samples" / variant.partition("/")[0]).is_dir():
        assert device["samples"] >= 24
        assert device["accuracy"] >= 0.95


def report(directory: Path, variant: str) -> Mapping[str, Any]:
    found: Mapping[str, Any] = json.loads((directory / f"{variant}.json").read_text())
    return found


@pytest.mark.parametrize("model", FLEETS)
def test_what_ran_is_what_the_registry_gives_to_devices(
    model: str, project: Project, work: Path
) -> None:
    """The files of the image's layers are, byte for byte, the layers of the model's artifact."""
    store = LayoutStore(project.root / "registry")
    given = {
        (layer.annotations["org.cncf.model.filepath"], layer.digest)
        for manifest in manifests(store.repository(f"models/{model}"))
        for layer in manifest.layers
    }
    ran = {
        (path.name, Digest.of_file(path))
        for target in FLEETS[model]
        for path in (work / "models" / model / target).iterdir()
    }
    assert ran == given
