"""Fixtures that every part's tests can ask for: real registries, started and stopped per test."""

from __future__ import annotations

import signal
from functools import cache
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

from edgectl.trust import keyfile
from tests.support.docker_registry import DockerRegistry
from tests.support.registry import Registry

if TYPE_CHECKING:
    from collections.abc import Iterator

# How long an example takes says more about the machine's other work than about the code.
settings.register_profile("edgectl", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("edgectl")

# A shell starts what it puts into the background with SIGINT ignored, and so would be every process
# of the tests: those that are sent one to end would go on.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def _derive_keys_once() -> Iterator[None]:
    """scrypt is slow on purpose; the same password and salt give the same key."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(keyfile, "_derive", cache(keyfile._derive))
        yield


@pytest.fixture
def registry() -> Iterator[Registry]:
    """The in-process OCI 1.1 registry with a referrers API, empty, over plain HTTP."""
    with Registry() as running:
        yield running


@pytest.fixture
def docker_registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DockerRegistry]:
    """Debian's docker-registry as a process of its own, empty, over plain HTTP."""
    with DockerRegistry(tmp_path_factory.mktemp("docker-registry")) as running:
        yield running
