from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from edgectl.agent.facts import board_name, cpu_features, identify, measure, memory_bytes
from edgectl.agent.probe import Engines, installation, probe
from edgectl.agent.profile import family_of, simulated_facts
from edgectl.errors import ConfigError

# As the kernels of the boards print them, shortened.
PI_CPUINFO = """processor\t: 0
BogoMIPS\t: 108.00
Features\t: fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimddp
CPU implementer\t: 0x41
"""
X86_CPUINFO = """processor\t: 0
model name\t: 13th Gen Intel(R) Core(TM) i5-1340P
flags\t\t: fpu sse4_2 avx avx2 fma avx_vnni
"""


@pytest.mark.parametrize(
    ("board", "family", "target"),
    [
        ("Raspberry Pi 5 Model B Rev 1.0", "raspberry-pi", "raspberry-pi-5"),
        ("Raspberry Pi 4 Model B Rev 1.4", "raspberry-pi", "raspberry-pi-4"),
        ("Raspberry Pi Compute Module 4 Rev 1.1", "raspberry-pi", "raspberry-pi-4"),
        ("NVIDIA Jetson Orin Nano Developer Kit", "jetson", "jetson-orin-nano"),
        ("NVIDIA Jetson Orin NX Engineering Reference Developer Kit", "jetson", "jetson-orin-nx"),
        ("NVIDIA Jetson AGX Orin Developer Kit", "jetson", "jetson-agx-orin"),
        ("NVIDIA Jetson Xavier NX Developer Kit", "jetson", None),
        ("NUC13ANKi5", "intel-nuc", "intel-nuc"),
        ("Standard PC (Q35 + ICH9, 2009)", "server", None),
        ("", "server", None),
    ],
)
def test_boards(board: str, family: str, target: str | None) -> None:
    assert identify(board) == (family, target)


def test_the_boards_that_are_detected_are_shipped_profiles() -> None:
    for target in ("raspberry-pi-4", "raspberry-pi-5", "jetson-orin-nano", "jetson-orin-nx"):
        assert family_of(target) in {"raspberry-pi", "jetson"}
    assert family_of("intel-nuc") == "intel-nuc"
    assert family_of("nothing-like-it") is None


def test_cpu_features() -> None:
    assert {"asimddp", "dotprod", "neon", "fp16"} <= cpu_features(PI_CPUINFO)
    assert {"avx2", "avx_vnni"} <= cpu_features(X86_CPUINFO)
    assert cpu_features("") == frozenset()


def test_memory() -> None:
    assert memory_bytes("MemTotal:        8245256 kB\nMemFree: 1 kB\n") == 8245256 * 1024
    assert memory_bytes("") == 0


def test_measured_on_another_root(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "proc" / "device-tree").mkdir(parents=True)
    (root / "proc" / "device-tree" / "model").write_bytes(b"Raspberry Pi 5 Model B Rev 1.0\0")
    (root / "proc" / "cpuinfo").write_text(PI_CPUINFO)
    (root / "proc" / "meminfo").write_text("MemTotal: 1024 kB\n")
    (root / "dev" / "dri").mkdir(parents=True)
    (root / "dev" / "dri" / "renderD128").touch()
    engines = Engines({"onnxruntime": "1.31.1"}, ("CPUExecutionProvider",), "key")
    facts = measure(tmp_path / "not" / "yet", engines=engines, root=root)
    assert (facts.family, facts.target) == ("raspberry-pi", "raspberry-pi-5")
    assert "dotprod" in facts.cpu_features
    assert facts.memory == 1 << 20
    assert facts.accelerators == {"gpu"}
    assert facts.engines == {"onnxruntime": "1.31.1"}
    assert facts.storage > 0
    assert not facts.simulated


def test_measured_here(tmp_path: Path) -> None:
    facts = measure(tmp_path)
    assert facts.os == "linux"
    assert facts.memory > 1 << 28
    assert facts.cores == os.cpu_count()
    assert "CPUExecutionProvider" in facts.providers
    assert measure(tmp_path).fingerprint == facts.fingerprint


def test_a_declared_target_names_what_is_measured(tmp_path: Path) -> None:
    facts = measure(tmp_path, target="intel-nuc", engines=Engines())
    assert (facts.family, facts.target) == ("intel-nuc", "intel-nuc")
    mine = measure(tmp_path, target="my-board", engines=Engines())
    assert mine.target == "my-board"


def test_free_space_is_no_part_of_the_facts(tmp_path: Path) -> None:
    """It changes by itself: a device that is full today is the same device."""
    before = measure(tmp_path, engines=Engines())
    (tmp_path / "data").write_bytes(bytes(1 << 20))
    after = measure(tmp_path / "not" / "yet", engines=Engines())
    assert after.fingerprint == before.fingerprint
    assert replace(before, memory=2).fingerprint != before.fingerprint


def test_board_name_of_a_machine_without_one(tmp_path: Path) -> None:
    assert board_name(tmp_path) == ""


def test_the_probe_asks_the_engine_itself() -> None:
    import onnxruntime

    engines = probe()
    assert engines.versions["onnxruntime"] == onnxruntime.__version__
    assert engines.providers == tuple(onnxruntime.get_available_providers())
    assert engines.key == installation()
    assert Engines.from_json(engines.to_json()) == engines


def test_a_probe_that_takes_too_long_finds_nothing() -> None:
    assert probe(timeout=0.001) == Engines()


def test_every_shipped_profile_can_be_simulated() -> None:
    directory = Path(__file__).parents[3] / "manifests" / "targets"
    names = [path.stem for path in directory.glob("*.yaml")]
    assert "raspberry-pi-5" in names
    for name in names:
        facts = simulated_facts(name)
        assert facts.simulated
        assert facts.target == name
        assert facts.memory > 0


def test_simulated_jetson() -> None:
    facts = simulated_facts("jetson-orin-nano")
    assert (facts.family, facts.architecture) == ("jetson", "arm64")
    assert facts.accelerators == {"gpu"}
    assert "TensorrtExecutionProvider" in facts.providers
    assert facts.engines == {"onnxruntime": "1.20"}


def test_a_profile_that_is_not_there() -> None:
    with pytest.raises(ConfigError, match="no hardware profile 'raspberry'") as caught:
        simulated_facts("raspberry")
    assert "did you mean 'raspberry-pi-" in str(caught.value.hint)
    assert "esp32-s3" in str(caught.value.hint)


def test_profile_files(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("kind: Target\nmetadata: {name: mine}\nspec: {family: server}\n")
    with pytest.raises(ConfigError, match="mine is malformed"):
        simulated_facts(str(file))
    file.write_text("kind: Fleet\n")
    with pytest.raises(ConfigError, match="has no Target"):
        simulated_facts(str(file))
    file.write_text(
        "kind: Target\nmetadata: {name: mine}\nspec:\n  family: server\n  memory: 1Gi\n"
        "  storage: 2Gi\n  platform: {os: linux, architecture: riscv64}\n"
    )
    facts = simulated_facts(str(file))
    assert (facts.target, facts.architecture, facts.memory) == ("mine", "riscv64", 1 << 30)


@pytest.mark.parametrize(
    "text", ["a: 2024-13-01\n", "a: 0b_\n", "a: !!timestamp soon\n", "[" * 10_000]
)
def test_profile_files_that_are_not_yaml(tmp_path: Path, text: str) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=r"cannot read the hardware profile .*mine\.yaml"):
        simulated_facts(str(file))
