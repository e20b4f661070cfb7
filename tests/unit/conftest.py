"""Unit tests do not touch the world: connecting beyond the loopback fails at once.

And a toy project, for those that need everything to be there but a toolchain.
"""

from __future__ import annotations

import ipaddress
import socket
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.toy import PASSWORD, ToyProject

if TYPE_CHECKING:
    from pathlib import Path


class NetworkForbiddenError(AssertionError):
    """A unit test reached for the network."""


def _is_local(host: object) -> bool:
    if host in {None, "", "localhost", b"localhost"}:
        return True
    try:
        return ipaddress.ip_address(str(host)).is_loopback
    except ValueError:
        return False


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    connect = socket.socket.connect
    getaddrinfo = socket.getaddrinfo

    def guarded_connect(self: socket.socket, address: Any) -> None:
        if self.family != socket.AF_UNIX and not _is_local(address[0]):
            raise NetworkForbiddenError(f"a unit test connects to {address}")
        connect(self, address)

    def guarded_getaddrinfo(host: Any, *args: Any, **kwargs: Any) -> Any:
        if str(host).endswith(".invalid"):  # RFC 6761: never resolves, so no need to ask
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        if not _is_local(host):
            raise NetworkForbiddenError(f"a unit test resolves {host!r}")
        return getaddrinfo(host, *args, **kwargs)

    monkeypatch.setattr(socket.socket, "connect", guarded_connect)
    monkeypatch.setattr(socket, "getaddrinfo", guarded_getaddrinfo)


@pytest.fixture(scope="session")
def toolchains(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the environment of the toy builder is made, once."""
    return tmp_path_factory.mktemp("toolchains")


@pytest.fixture(scope="session")
def toy_to_copy(tmp_path_factory: pytest.TempPathFactory) -> ToyProject:
    """A toy project with release metadata, which no test changes."""
    made = ToyProject.make(tmp_path_factory.mktemp("toy") / "repo")
    made.init_trust()
    return made


@pytest.fixture
def toy(
    toy_to_copy: ToyProject, tmp_path: Path, toolchains: Path, monkeypatch: pytest.MonkeyPatch
) -> ToyProject:
    """A toy project with release metadata, nothing applied."""
    monkeypatch.setenv("EDGECTL_CACHE", str(toolchains))
    monkeypatch.setenv("EDGECTL_KEY_PASSWORD", PASSWORD)
    return toy_to_copy.copy(tmp_path / "repo")
