from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgectl.agent.facts import Facts
from edgectl.agent.select import select, version_satisfies
from edgectl.oci.descriptor import OCI_MANIFEST, Descriptor, Platform

ARM64 = Platform("linux", "arm64", "v8")
AMD64 = Platform("linux", "amd64")
CPU = ["CPUExecutionProvider"]
PI5 = Facts(
    "linux", "arm64", "raspberry-pi", "v8", "raspberry-pi-5", frozenset({"asimd", "asimddp"}), 4,
    8 << 30, 32 << 30, frozenset(), {"onnxruntime": "1.31.1"}, frozenset(CPU),
)  # fmt: skip


def variant(
    target: str, family: str, platform: Platform = ARM64, version: str = ">=1.20", **requires: Any
) -> Descriptor:
    annotations = {
        "dev.edgectl.target": target,
        "dev.edgectl.engine": "onnxruntime",
        "dev.edgectl.engine-version": version,
        "dev.edgectl.precision": "int8",
        "dev.edgectl.requires": json.dumps({"family": family, "providers": CPU, **requires}),
    }
    return Descriptor.of(target.encode(), OCI_MANIFEST, annotations=annotations, platform=platform)


PI5_VARIANT = variant("raspberry-pi-5", "raspberry-pi")
PI4_VARIANT = variant("raspberry-pi-4", "raspberry-pi")
GENERIC = variant("server-arm64", "server")
JETSON = variant("jetson-orin-nano", "jetson")
NUC = variant("intel-nuc", "intel-nuc", AMD64)


def chosen(*descriptors: Descriptor, facts: Facts = PI5) -> str | None:
    choice = select(descriptors, facts)
    return None if choice.chosen is None else choice.chosen.target


def reason(descriptor: Descriptor, facts: Facts = PI5) -> str:
    choice = select([descriptor], facts)
    assert choice.descriptor is None
    (rejection,) = choice.rejected
    return rejection.reason


def test_what_is_for_no_target_is_no_variant() -> None:
    overview = Descriptor.of(b"overview", OCI_MANIFEST, platform=ARM64)
    choice = select([overview, PI5_VARIANT], PI5)
    assert choice.descriptor == PI5_VARIANT
    assert not choice.rejected
    assert select([overview], PI5).chosen is None


def test_exact_then_family_then_generic() -> None:
    everything = [JETSON, GENERIC, PI4_VARIANT, NUC, PI5_VARIANT]
    assert chosen(*everything) == "raspberry-pi-5"
    assert chosen(*everything[:-1]) == "raspberry-pi-4"
    assert chosen(JETSON, GENERIC, NUC) == "server-arm64"
    assert chosen(JETSON, NUC) is None


@given(st.permutations([JETSON, GENERIC, PI4_VARIANT, NUC, PI5_VARIANT]))
def test_the_order_of_the_index_is_no_matter(descriptors: list[Descriptor]) -> None:
    choice = select(descriptors, PI5)
    assert choice.descriptor == PI5_VARIANT
    assert {rejection.target for rejection in choice.rejected} == {
        "jetson-orin-nano", "server-arm64", "raspberry-pi-4", "intel-nuc",
    }  # fmt: skip
    assert all(rejection.reason for rejection in choice.rejected)


def test_an_unknown_device_takes_no_variant_of_a_family() -> None:
    generic = replace(PI5, family="server", target=None)
    assert chosen(PI5_VARIANT, JETSON, facts=generic) is None
    assert chosen(PI5_VARIANT, GENERIC, facts=generic) == "server-arm64"


def test_reasons() -> None:
    assert "is for linux/amd64, this device is linux/arm64" in reason(NUC)
    assert "made for the family jetson, this device is a raspberry-pi" in reason(JETSON)
    assert "needs onnxruntime >=2, this device has 1.31.1" in reason(
        variant("raspberry-pi-5", "raspberry-pi", version=">=2")
    )
    assert "needs TensorrtExecutionProvider or CUDAExecutionProvider" in reason(
        variant("x", "server", providers=["TensorrtExecutionProvider", "CUDAExecutionProvider"])
    )
    assert "needs an accelerator (gpu)" in reason(variant("x", "server", accelerators=["gpu"]))
    assert "needs the CPU features i8mm, sve" in reason(
        variant("x", "server", cpuFeatures=["asimd", "i8mm", "sve"])
    )
    assert "needs 16.0 GiB of memory, this device has 8.0 GiB" in reason(
        variant("x", "server", peakMemory=16 << 30)
    )
    assert "needs 64.0 GiB of storage" in reason(variant("x", "server", size=64 << 30))
    assert "does not have" in reason(PI5_VARIANT, replace(PI5, engines={}))


def test_every_reason_is_given() -> None:
    text = reason(variant("x", "jetson", AMD64, accelerators=["gpu"]))
    assert text.count(";") == 2


def test_arm_needs_its_level() -> None:
    v6 = replace(PI5, architecture="arm", variant="v6")
    v7 = variant("x", "server", Platform("linux", "arm", "v7"))
    assert "arm/v7" in reason(v7, v6)
    assert chosen(v7, facts=replace(v6, variant="v7")) == "x"


@pytest.mark.parametrize(
    "text", ["[]", "{", "[" * 100_000, '{"memory": "much"}', '{"accelerators": 3}']
)
def test_malformed_annotations_are_a_reason(text: str) -> None:
    descriptor = replace(
        PI5_VARIANT, annotations={**PI5_VARIANT.annotations, "dev.edgectl.requires": text}
    )
    assert "malformed" in reason(descriptor)


def test_losers_are_told_who_won() -> None:
    choice = select([PI4_VARIANT, PI5_VARIANT, GENERIC], PI5)
    assert {r.reason for r in choice.rejected} == {
        "would run, but raspberry-pi-5 is exactly this device"
    }


@pytest.mark.parametrize(
    ("version", "requirement", "satisfied"),
    [
        ("1.31.1", ">=1.20", True),
        ("1.9.0", ">=1.20", False),
        ("1.20", ">=1.20.0", True),
        ("1.31.1", ">=1.20,<2", True),
        ("2.0", ">=1.20,<2", False),
        ("1.31.1", "1.20", True),
        ("1.31.1", "==1.31", False),
        ("1.31.0", "==1.31", True),
        ("1.31.1", "!=1.31.1", False),
        ("1.31.1", ">1.31", True),
        ("1.31.1", "<=1.31.1", True),
        ("1.31.1+cuda", ">=1.31.1", True),
        ("1.31.1", "~=1.20", True),
        ("2.0", "~=1.20", False),
        ("1.21", "~=1.20.3", False),
        ("1.31.1", "", True),
    ],
)
def test_versions(version: str, requirement: str, satisfied: bool) -> None:
    assert version_satisfies(version, requirement) is satisfied


def test_a_requirement_of_another_form() -> None:
    with pytest.raises(ValueError, match="not a version requirement"):
        version_satisfies("1.0", "^1.0")
