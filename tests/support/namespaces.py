"""Mounts that only those see who made them: they need no root, and end with their process.

They need Linux's user namespaces, which some systems keep from ordinary users.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Self

UNSHARE = ("unshare", "--user", "--map-root-user", "--mount")
"""Runs a command as the root of a user namespace, with mounts of its own."""

REFUSED = (
    "the tests mount file systems in user namespaces. Where that is refused, run them as root or "
    "see sysctl kernel.unprivileged_userns_clone, kernel.apparmor_restrict_unprivileged_userns"
)


class SmallDisk:
    """A file system of its own, with room for `size` bytes.

    A shell in a namespace holds it. `command` runs what sees it at `directory`; all others reach
    it at `path`, which leads through the shell's `/proc` and must not be resolved.
    """

    def __init__(self, directory: Path, size: int) -> None:
        self.directory = directory
        self._size = size

    def __enter__(self) -> Self:
        self.directory.mkdir(parents=True, exist_ok=True)
        self._shell = subprocess.Popen(
            [*UNSHARE, "sh", "-e"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**os.environ, "DISK": str(self.directory)},
        )
        self.path = Path(f"/proc/{self._shell.pid}/root{self.directory}")
        try:
            self._do(f'mount -t tmpfs -o size={self._size} tmpfs "$DISK"')
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._shell.kill()
        self._shell.communicate()

    @property
    def free(self) -> int:
        """How many bytes are left."""
        left = os.statvfs(self.path)
        return left.f_bavail * left.f_frsize

    def make_read_only(self) -> None:
        """From now on nothing can be written."""
        self._do('mount -o remount,bind,ro "$DISK"')

    def command(self, *command: str) -> list[str]:
        """The command line that runs a command where the file system is at `directory`."""
        target = ["--target", str(self._shell.pid), "--user", "--mount", "--preserve-credentials"]
        return ["nsenter", *target, "--", *command]

    def _do(self, command: str) -> None:
        """Have the shell run a command; when that fails, the shell says why and ends."""
        assert self._shell.stdin is not None
        assert self._shell.stdout is not None
        self._shell.stdin.write(f"{command}; echo done\n".encode())
        self._shell.stdin.flush()
        said = self._shell.stdout.readline()
        if said != b"done\n":
            raise RuntimeError(f"{said.decode()}{REFUSED}")
