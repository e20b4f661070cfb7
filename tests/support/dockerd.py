"""A Docker daemon of the tests' own."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Self

_START_SECONDS = 60.0


class Dockerd:
    """dockerd with the vfs driver and no network; needs root.

    It lives in a directory of its own with a short name: a socket's path has at most 104 bytes.
    """

    def __enter__(self) -> Self:
        self._temporary = TemporaryDirectory(prefix="dockerd-")
        self._directory = Path(self._temporary.name)
        self._socket = self._directory / "docker.sock"
        self._log = self._directory / "dockerd.log"
        command = ["dockerd", "--storage-driver=vfs", "--iptables=false", "--bridge=none"]
        command += [f"--data-root={self._directory}/data", f"--exec-root={self._directory}/exec"]
        command += ["-H", f"unix://{self._socket}", "-p", f"{self._directory}/pid"]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        deadline = time.monotonic() + _START_SECONDS
        while self.docker("version", check=False).returncode != 0:
            if self._process.poll() is not None or time.monotonic() > deadline:
                log_text = self._log.read_text()
                self.__exit__()
                raise RuntimeError(f"dockerd does not start:\n{log_text}")
            time.sleep(0.1)
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait()
        self._temporary.cleanup()

    def docker(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run the docker client against this daemon."""
        return subprocess.run(
            ["docker", "-H", f"unix://{self._socket}", *arguments],
            check=check,
            capture_output=True,
            text=True,
            env={**os.environ, "DOCKER_CONFIG": str(self._directory)},
        )
