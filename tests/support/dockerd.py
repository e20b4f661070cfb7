"""A Docker daemon of the tests' own."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Self

from tests.support.namespaces import REFUSED, UNSHARE

_START_SECONDS = 60.0

# The daemon's mounts and processes live in namespaces of its own, and those end with our end of the
# pipe, also when we are killed. The system's own Docker, its settings included, is out of sight.
_NAMESPACES = (*UNSHARE, "--pid", "--fork", "--kill-child", "--mount-proc")
_SCRIPT = """
set -e
for directory in /run /etc/docker; do
    if [ -d $directory ]; then mount -t tmpfs tmpfs $directory; fi
done
exec 3<&0
{ cat <&3; kill -KILL -1; } &
"$@" 3<&-
"""


class Dockerd:
    """dockerd with the vfs driver and no network; needs no root.

    It lives in a directory of its own with a short name: a socket's path has at most 104 bytes.
    """

    def __enter__(self) -> Self:
        self._temporary = TemporaryDirectory(prefix="dockerd-")
        self._directory = Path(self._temporary.name)
        self._socket = self._directory / "docker.sock"
        self._log = self._directory / "dockerd.log"
        daemon = ["dockerd", "--storage-driver=vfs", "--iptables=false", "--bridge=none"]
        daemon += ["--ip-forward=false"]
        daemon += [f"--data-root={self._directory}/data", "--exec-root=/run/docker"]
        daemon += ["-H", f"unix://{self._socket}", "--group=0", "--pidfile=/run/docker.pid"]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [*_NAMESPACES, "sh", "-c", _SCRIPT, "sh", *daemon],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
            )
        try:
            self._wait()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()
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

    def _wait(self) -> None:
        deadline = time.monotonic() + _START_SECONDS
        while self.docker("version", check=False).returncode != 0:
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"dockerd does not start:\n{self._log.read_text()}\n{REFUSED}")
            time.sleep(0.1)
