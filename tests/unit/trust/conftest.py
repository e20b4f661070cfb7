"""Real keys, made once; a release repository in each kind of store."""

from __future__ import annotations

import shutil
from functools import cache
from typing import TYPE_CHECKING

import pytest

from edgectl.oci.layout import LayoutStore
from edgectl.trust import keyfile
from edgectl.trust.client import TrustClient
from edgectl.trust.keys import PrivateKey, generate
from edgectl.trust.policy import KeyPolicy
from edgectl.trust.repository import TrustRepository
from tests.support.registry import Registry

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from edgectl.oci.store import Store

PASSWORD = b"correct horse"


@pytest.fixture(autouse=True)
def _scrypt_once_per_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test opens the same key files: what scrypt makes of them is worked out once."""
    monkeypatch.setattr(keyfile, "_derive", _derive_once)


_derive_once = cache(keyfile._derive)


@pytest.fixture(scope="session")
def key() -> PrivateKey:
    return generate()


@pytest.fixture(scope="session")
def other_key() -> PrivateKey:
    return generate()


@pytest.fixture(params=["layout", "http"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    if request.param == "layout":
        yield LayoutStore(tmp_path / "registry")
        return
    with Registry() as registry:
        yield registry.store("edge")


@pytest.fixture(scope="session")
def role_keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trust directory: three root keys of which two sign, one key for each other role."""
    base = tmp_path_factory.mktemp("trust")
    repository = TrustRepository(
        LayoutStore(base / "registry"), base / "trust", password=lambda: PASSWORD
    )
    repository.init(KeyPolicy({"root": 3}, {"root": 2}))
    (base / "trust" / "seen-timestamp").unlink()
    return base / "trust"


@pytest.fixture
def directory(role_keys: Path, tmp_path: Path) -> Path:
    """A copy of those keys for one test."""
    return shutil.copytree(role_keys, tmp_path / "trust")


@pytest.fixture
def trust(store: Store, directory: Path) -> TrustRepository:
    """An initialised release repository."""
    repository = TrustRepository(store, directory, password=lambda: PASSWORD)
    repository.init()
    return repository


@pytest.fixture
def client(store: Store, directory: Path, tmp_path: Path) -> TrustClient:
    """A device that was shipped with the first root."""
    root = (directory / "1.root.json").read_bytes()
    return TrustClient(store, tmp_path / "device", root)
