"""Debian's docker-registry (distribution 2.8) as a process of its own."""

from __future__ import annotations

import re
import subprocess
import time
from typing import TYPE_CHECKING, Any, Self

import yaml

from edgectl.oci.access import Access, open_store
from edgectl.oci.reference import RegistryLocation

if TYPE_CHECKING:
    from pathlib import Path

    from edgectl.oci.store import Store
    from tests.support.tls import Certificates

_LISTENING = re.compile(r"listening on 127\.0\.0\.1:(\d+)")
_START_SECONDS = 30.0


class DockerRegistry:
    """One registry below a directory, on a port that the kernel chose.

    With `htpasswd` (lines of `user:bcrypt-hash`) it asks for basic credentials; `read_only` is
    its maintenance mode; with `certificates` it speaks TLS.
    """

    def __init__(
        self,
        directory: Path,
        *,
        htpasswd: str | None = None,
        read_only: bool = False,
        certificates: Certificates | None = None,
    ) -> None:
        self.directory = directory
        self.storage = directory / "storage"
        self.port = 0
        self._certificates = certificates
        self._log = directory / "registry.log"
        self._config = directory / "config.yml"
        self._config.write_text(
            yaml.safe_dump(_config(self.storage, directory, htpasswd, read_only, certificates))
        )

    def __enter__(self) -> Self:
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                ["docker-registry", "serve", str(self._config)],
                stdout=log,
                stderr=subprocess.STDOUT,
                env={"PATH": "/usr/bin:/bin", "OTEL_TRACES_EXPORTER": "none"},
            )
        try:
            self.port = self._wait()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait()

    @property
    def host(self) -> str:
        """`127.0.0.1:<port>`."""
        return f"127.0.0.1:{self.port}"

    def location(self, prefix: str = "") -> RegistryLocation:
        """The registry setting that names this registry."""
        return RegistryLocation(self.host, prefix)

    def store(self, prefix: str = "", access: Access | None = None) -> Store:
        """A production store on this registry; plain HTTP unless it speaks TLS."""
        if access is None:
            certificates = self._certificates
            access = Access(
                insecure=certificates is None,
                ca_file=None if certificates is None else certificates.ca,
            )
        return open_store(self.location(prefix), access)

    def log(self) -> str:
        """What the registry wrote."""
        return self._log.read_text()

    def _wait(self) -> int:
        deadline = time.monotonic() + _START_SECONDS
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                break
            found = _LISTENING.search(self.log())
            if found:
                return int(found[1])
            time.sleep(0.02)
        raise RuntimeError(f"docker-registry does not start:\n{self.log()}")


def _config(
    storage: Path,
    directory: Path,
    htpasswd: str | None,
    read_only: bool,
    certificates: Certificates | None,
) -> dict[str, Any]:
    config: dict[str, Any] = {
        "version": "0.1",
        "log": {"level": "info", "formatter": "text"},
        "storage": {
            "filesystem": {"rootdirectory": str(storage)},
            "delete": {"enabled": True},
            "maintenance": {
                "uploadpurging": {"enabled": False},
                "readonly": {"enabled": read_only},
            },
        },
        "http": {"addr": "127.0.0.1:0", "secret": "tests"},
    }
    if htpasswd is not None:
        file = directory / "htpasswd"
        file.write_text(htpasswd)
        config["auth"] = {"htpasswd": {"realm": "tests", "path": str(file)}}
    if certificates is not None:
        config["http"]["tls"] = {
            "certificate": str(certificates.certificate),
            "key": str(certificates.key),
        }
    return config
