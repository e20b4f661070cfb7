"""An agent whose engine compiles on the device: once for each model, kept as long as it is used."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING

import pytest

from edgectl.agent.loop import poll_once
from edgectl.agent.machine import State
from edgectl.agent.report import status
from edgectl.build.modelpack import Entry, pack
from edgectl.engine.modeldir import ModelDirectory
from edgectl.engine.recipe import Batch, Recipe
from edgectl.errors import ConfigError, HealthError, StorageFullError
from edgectl.oci.descriptor import OCI_MANIFEST, Descriptor
from edgectl.oci.layout import LayoutStore
from edgectl.serve.slot import compiled_cache, model_path, read_link, read_slot, slot_path
from tests.support.fleet import Fleet, ModelOptions, golden_bytes, model_bytes, variant_of
from tests.support.tensorrt_stubs import FAKE, build_libcuda

if TYPE_CHECKING:
    from edgectl.oci.store import Repository

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
RECIPE = Recipe("fp32", batch=Batch(1, 1, 4)).to_bytes()


class TensorRtFleet(Fleet):
    """Publishes models for TensorRT: ONNX with a recipe."""

    engines_are_known = False

    def _push(
        self, repository: Repository, name: str, version: str, options: ModelOptions
    ) -> Entry:
        model = model_bytes(version, options)
        files = {"model.onnx": model, "recipe.json": RECIPE}
        variant = variant_of(name, version, replace(options, engine_version=">=10.3"))
        signature = replace(variant.signature, engine={"name": "tensorrt", "version": ">=10.3"})
        golden = golden_bytes(model, off=False)
        package = pack(
            replace(variant, signature=signature),
            model={path: Descriptor.of(data, "x") for path, data in files.items()},
            golden=Descriptor.of(golden, "x"),
            card="# a model\n",
        )
        blobs = {Descriptor.of(data, "x").digest: data for data in (*files.values(), golden)}
        for blob in package.manifest.blobs:
            repository.push_blob(blob, package.blobs.get(blob.digest) or blobs[blob.digest])
        repository.push_manifest(package.manifest.to_bytes(), OCI_MANIFEST)
        return Entry(package.manifest, options.platform)


@pytest.fixture
def fleet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TensorRtFleet:
    """A fleet, on a machine with the stand-in for TensorRT."""
    (tmp_path / "lib").mkdir()
    monkeypatch.setenv("LD_LIBRARY_PATH", str(build_libcuda(tmp_path / "lib").parent))
    monkeypatch.setenv("PYTHONPATH", f"{FAKE}:{ROOT}")
    monkeypatch.syspath_prepend(str(FAKE))
    return TensorRtFleet(tmp_path, LayoutStore(tmp_path / "registry"))


def plans(state: Path) -> list[Path]:
    return sorted((state / "compiled").glob("*/*.plan"))


def test_compiled_before_it_serves_and_removed_after(fleet: TensorRtFleet) -> None:
    config = fleet.config()
    for number in range(1, 4):
        fleet.release(fleet.publish_model(version=f"{number}.0.0"))
        assert poll_once(config, Event()).result == "updated"
    current = read_link(config.state, "current")
    assert current is not None
    (entry,) = read_slot(slot_path(config.state, current)).models
    assert (entry.version, entry.engine) == ("3.0.0", "tensorrt")
    # Those of `current` and `previous` stay; kernels that were measured stay for all to come.
    assert len(plans(config.state)) == 2
    assert compiled_cache(config.state, entry.manifest) is not None
    assert list((config.state / "compiled" / "timing").iterdir())
    model = ModelDirectory.open(model_path(config.state, current, entry.name))
    assert {path.name for path in model.path.iterdir()} >= {"model.onnx", "recipe.json"}


def test_a_model_that_does_not_compile_is_never_served(
    fleet: TensorRtFleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = fleet.config()
    fleet.release(fleet.publish_model())
    poll_once(config, Event())
    good = read_link(config.state, "current")
    monkeypatch.setenv("FAKE_TRT_REFUSES", "Gemm")
    fleet.release(fleet.publish_model(version="2.0.0"))
    with pytest.raises(HealthError, match="does not take operator Gemm"):
        poll_once(config, Event())
    assert read_link(config.state, "current") == good
    assert len(plans(config.state)) == 1
    assert len(list((config.state / "compiled").iterdir())) == 2  # the good one, and timing
    with pytest.raises(HealthError, match="does not take operator Gemm"):
        poll_once(config, Event())  # remembered, not tried again


def test_a_gpu_that_is_away_rules_nothing_out(
    fleet: TensorRtFleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = fleet.config()
    fleet.release(fleet.publish_model())
    poll_once(config, Event())  # the device knows its engines from now on
    fleet.release(fleet.publish_model(version="2.0.0"))
    monkeypatch.setenv("FAKE_CUDA_DEVICES", "0")
    with pytest.raises(ConfigError, match="no NVIDIA GPU"):
        poll_once(config, Event())
    monkeypatch.delenv("FAKE_CUDA_DEVICES")
    poll_once(config, Event())
    assert status(config)["failed"] == []


def test_what_is_compiled_leaves_the_reserve(fleet: TensorRtFleet) -> None:
    config = fleet.config()
    fleet.release(fleet.publish_model())
    with pytest.raises(StorageFullError):
        poll_once(replace(config, reserve=1 << 60), Event())
    assert not plans(config.state)


@pytest.mark.parametrize("state", [State.COMPILE, State.WARMUP, State.CLEANUP])
def test_killed_beside_the_compilation(fleet: TensorRtFleet, state: State) -> None:
    device, config = fleet.device(), fleet.config()
    fleet.release(fleet.publish_model())
    poll_once(config, Event())
    fleet.release(fleet.publish_model(version="2.0.0"))
    command = [sys.executable, "-m", "tests.support.dying_agent", str(device), state]
    done = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    poll_once(config, Event())
    current = read_link(config.state, "current")
    assert current is not None
    assert read_slot(slot_path(config.state, current)).models[0].version == "2.0.0"
    assert len(plans(config.state)) == 2
    assert status(config)["failed"] == []


def test_killed_in_the_middle_of_a_build(
    fleet: TensorRtFleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its compiler ends with it, and the next agent begins again."""
    device, config = fleet.device(), fleet.config()
    fleet.release(fleet.publish_model())
    monkeypatch.setenv("FAKE_TRT_STEP_SECONDS", "600")
    command = [sys.executable, "-m", "tests.support.dying_agent", str(device), "never"]
    with subprocess.Popen(command, cwd=ROOT) as agent:
        try:
            while not (compiler := compiler_of(agent.pid)):
                assert agent.poll() is None
        finally:
            agent.kill()
    while is_running(compiler):
        os.sched_yield()
    monkeypatch.delenv("FAKE_TRT_STEP_SECONDS")
    poll_once(config, Event())
    assert len(plans(config.state)) == 1


def compiler_of(agent: int) -> int:
    """The process that compiles for an agent; 0 while there is none."""
    for pid in Path(f"/proc/{agent}/task/{agent}/children").read_text().split():
        with suppress(FileNotFoundError, ProcessLookupError):  # it has ended by now
            if b"edgectl.engine.compile" in Path(f"/proc/{pid}/cmdline").read_bytes():
                return int(pid)
    return 0


def is_running(pid: int) -> bool:
    """Whether a process lives; a zombie that nobody has waited for does not."""
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False
