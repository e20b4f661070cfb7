from __future__ import annotations

import platform

from edgectl.engine.host import describe_host, host_architecture


def test_the_architecture_has_its_oci_name() -> None:
    names = {"x86_64": "amd64", "aarch64": "arm64"}
    assert host_architecture() == names.get(platform.machine(), platform.machine())


def test_the_cpu_is_named() -> None:
    described = describe_host()
    assert described["architecture"] == host_architecture()
    assert described["cpu"]
