"""An arm64 Debian on this machine: its own Python and aarch64 wheels, run by QEMU's user emulation.

It needs neither root nor binfmt_misc. `mmdebstrap` unpacks the packages in a user namespace and
runs none of their scripts. In there `/usr/local/bin/python3` is a script for the emulator, so that
programs that start Python again, as edgectl does, get the emulated one. Nothing is timed: speed
under emulation says nothing of a device.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from tests.support.namespaces import UNSHARE
from tests.support.project import REPOSITORY

LOCK = REPOSITORY / "requirements" / "arm64.txt"
WORK = Path("/work")
"""Where the directory that `run` is given lies for what runs."""

_SUITE, _PYTHON, _WHEELS = "bookworm", "3.11", "aarch64-manylinux_2_36"  # its glibc is 2.36
_PACKAGES = "dash,libstdc++6,python3"
_EMULATOR = "qemu-aarch64-static"
_PYTHON_SCRIPT = f"""\
#!/{_EMULATOR} /bin/sh
exec /{_EMULATOR} -0 "$0" /usr/bin/python3 "$@"
"""
_ENTER = """
root=$1 emulator=$2 machine=$3 work=$4
shift 4
mount --bind "$emulator" "$root/qemu-aarch64-static"
mount --rbind /dev "$root/dev"
mount --rbind /proc "$root/proc"
mount --bind "$machine/cpuinfo" "$root/proc/cpuinfo"
mount --bind "$machine/sys" "$root/sys"
mount --bind "$work" "$root/work"
exec env -C / chroot "$root" /usr/local/bin/python3 "$@"
"""


@dataclass(frozen=True)
class Processor:
    """An Arm processor as QEMU names it, and what Linux says of it on the board."""

    name: str
    midr: int
    """MIDR_EL1 of the revision that QEMU has (Arm Architecture Reference Manual)."""
    features: str

    def describe(self, directory: Path) -> None:
        """Write `cpuinfo` and `sys`, as the kernel of a board with one such core shows them.

        Engines choose their kernels by them. The host's would be read as an Arm processor's, which
        ends ONNX Runtime by a signal.
        """
        fields = {
            "processor": "0",
            "BogoMIPS": "108.00",
            "Features": self.features,
            "CPU implementer": f"{self.midr >> 24:#x}",
            "CPU architecture": "8",
            "CPU variant": f"{self.midr >> 20 & 0xF:#x}",
            "CPU part": f"{self.midr >> 4 & 0xFFF:#x}",
            "CPU revision": f"{self.midr & 0xF}",
        }
        text = "".join(f"{name}\t: {value}\n" for name, value in fields.items())
        _write(directory / "cpuinfo", f"{text}\n")
        cores = directory / "sys/devices/system/cpu"
        for name in ("online", "possible", "present"):
            _write(cores / name, "0\n")
        for name in ("core_id", "physical_package_id"):
            _write(cores / "cpu0/topology" / name, "0\n")
        for name in ("core_cpus", "core_siblings", "package_cpus", "thread_siblings"):
            _write(cores / "cpu0/topology" / name, "1\n")
        _write(cores / "cpu0/regs/identification/midr_el1", f"{self.midr:#018x}\n")


CORTEX_A72 = Processor("cortex-a72", 0x410FD083, "fp asimd evtstrm crc32 cpuid")
CORTEX_A76 = Processor(
    "cortex-a76",
    0x414FD0B1,
    "fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop "
    "asimddp",
)
_PROCESSORS = (CORTEX_A72, CORTEX_A76)


class Arm64:
    """The Debian with the wheels of `requirements/arm64.txt`, made once and kept in the cache."""

    def __init__(self) -> None:
        self._emulator = Path(_program(_EMULATOR)).resolve()
        key = hashlib.sha256(LOCK.read_bytes() + Path(__file__).read_bytes()).hexdigest()
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "edgectl-tests"
        self._root = cache / f"arm64-{key[:16]}"
        if not self._root.is_dir():
            _make(self._root)

    def run(self, processor: Processor, work: Path, *arguments: str) -> None:
        """Run Python with arguments on a processor; it sees `work` as `/work` and imports from it.

        Raises RuntimeError with what it said if it fails.
        """
        machine = self._root / "machines" / processor.name
        paths = (str(self._root), str(self._emulator), str(machine), str(work))
        environment = {
            "HOME": "/tmp",
            "PATH": "/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONPATH": f"{WORK}:/wheels",
            "QEMU_CPU": processor.name,
        }
        _must([*UNSHARE, "sh", "-ec", _ENTER, "sh", *paths, *arguments], environment)


def _make(root: Path) -> None:
    """Make the root beside its place, then move it there: it is whole or absent."""
    root.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=root.parent, prefix=".arm64-") as directory:
        new = Path(directory) / "root"
        _debian(new)
        _wheels(new / "wheels")
        for processor in _PROCESSORS:
            processor.describe(new / "machines" / processor.name)
        for name in ("dev", "proc", "sys", "tmp", "work"):
            (new / name).mkdir(exist_ok=True)
        (new / _EMULATOR).touch()
        python = new / "usr/local/bin/python3"
        _write(python, _PYTHON_SCRIPT)
        python.chmod(0o755)
        try:
            new.rename(root)
        except OSError:
            if not root.is_dir():  # Another process was first.
                raise


def _debian(root: Path) -> None:
    options = ["--quiet", "--mode=root", "--variant=extract", f"--include={_PACKAGES}"]
    # In a user namespace there is no other user that apt could become.
    options += ["--architectures=arm64", '--aptopt=APT::Sandbox::User "root"']
    _must([*UNSHARE, _program("mmdebstrap"), *options, _SUITE, str(root)])


def _wheels(directory: Path) -> None:
    uv = Path(sys.executable).with_name("uv")
    platform = ["--python-platform", _WHEELS, "--python-version", _PYTHON]
    options = ["--quiet", "--require-hashes", "--only-binary", ":all:", "--target", str(directory)]
    _must([str(uv), "pip", "install", *platform, *options, "-r", str(LOCK)])


def _program(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        raise RuntimeError(f"{name} is not installed; run: make test-system")
    return found


def _must(command: list[str], environment: dict[str, str] | None = None) -> None:
    done = subprocess.run(
        command, env=environment, check=False, capture_output=True, text=True, errors="replace"
    )
    if done.returncode != 0:
        raise RuntimeError(
            f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout}{done.stderr}"
        )


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
