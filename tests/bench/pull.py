"""Verified pull of a large artifact from docker-registry on loopback, against its peers.

    python -m tests.bench.pull [--size 1000] [--rounds 3]

Prints a Markdown table: the best of some rounds, which take turns, and the highest resident
memory and least CPU time of the process that pulled. `skopeo copy` verifies digests, oras-py does
not.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from edgectl.digest import Digest
from edgectl.oci.descriptor import EMPTY_CONFIG, OCI_MANIFEST, Descriptor, Manifest
from tests.support.docker_registry import DockerRegistry

_EDGECTL = """
import sys
from pathlib import Path
from edgectl.oci.access import Access, open_store
from edgectl.oci.descriptor import parse_manifest
from edgectl.oci.reference import Reference
from edgectl.oci.transfer import pull_blob

reference = Reference.parse(sys.argv[1])
store = open_store(reference.location, Access(insecure=True))
repository = store.repository(reference.name)
layer = parse_manifest(repository.read_manifest(reference.target)[1]).layers[0]
pull_blob(repository, layer, Path(sys.argv[2]) / "artifact")
"""
_ORAS = """
import sys
import oras.client

client = oras.client.OrasClient(insecure=True)
client.pull(sys.argv[1], outdir=sys.argv[2])
"""


@dataclass(frozen=True)
class Run:
    """What one pull took."""

    seconds: float
    cpu_seconds: float
    resident_bytes: int


def main() -> None:
    """Run the benchmark and print its table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--size", type=int, default=1000, help="megabytes")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    size = arguments.size * 10**6
    with TemporaryDirectory(prefix="edgectl-bench-") as name:
        directory = Path(name)
        artifact = directory / "artifact"
        _write_random(artifact, size)
        with DockerRegistry(directory) as registry:
            _push(registry, artifact, size)
            results = _measure(f"{registry.host}/bench:1", directory, size, arguments.rounds)
    print(_table(results, size))


def _write_random(path: Path, size: int) -> None:
    with path.open("wb") as file:
        for start in range(0, size, 1 << 20):
            file.write(os.urandom(min(1 << 20, size - start)))


def _push(registry: DockerRegistry, artifact: Path, size: int) -> None:
    repository = registry.store().repository("bench")
    layer = Descriptor("application/octet-stream", Digest.of_file(artifact), size)
    repository.push_blob(layer, artifact)
    repository.push_blob(EMPTY_CONFIG, b"{}")
    manifest = Manifest(EMPTY_CONFIG, (layer,), artifact_type="application/vnd.example.bench")
    repository.push_manifest(manifest.to_bytes(), OCI_MANIFEST, tag="1")


def _measure(reference: str, directory: Path, size: int, rounds: int) -> dict[str, list[Run]]:
    out = directory / "out"
    insecure = "--src-tls-verify=false"
    commands: dict[str, list[str]] = {
        "edgectl `pull_blob` (verifies, syncs)": [
            sys.executable,
            "-c",
            _EDGECTL,
            reference,
            str(out),
        ],
        "`skopeo copy` to a directory (verifies)": [
            *("skopeo", "--insecure-policy", "copy", "--quiet", insecure),
            *(f"docker://{reference}", f"dir:{out}"),
        ],
        "oras-py `pull` (does not verify)": [sys.executable, "-c", _ORAS, reference, str(out)],
    }
    results: dict[str, list[Run]] = {name: [] for name in commands}
    for _ in range(rounds):
        for name, command in commands.items():
            out.mkdir()
            os.sync()  # what one round wrote is not the next one's work
            results[name].append(_run(command))
            pulled = max(path.stat().st_size for path in out.iterdir())
            if pulled != size:
                raise RuntimeError(f"{name} pulled {pulled} of {size} bytes")
            shutil.rmtree(out)
    return results


def _run(command: list[str]) -> Run:
    start = time.perf_counter()
    process = subprocess.Popen(command)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise RuntimeError(f"{command[0]} failed with {process.returncode}")
    return Run(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024)  # from KiB


def _table(results: dict[str, list[Run]], size: int) -> str:
    best = {name: min(run.seconds for run in runs) for name, runs in results.items()}
    ours = next(iter(best.values()))
    lines = [
        f"| pull of {size / 10**6:.0f} MB | best | rate | time / ours | CPU | peak memory |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for name, runs in results.items():
        rate = size / best[name] / 10**6
        cpu = min(run.cpu_seconds for run in runs)
        peak = max(run.resident_bytes for run in runs) / 10**6
        lines.append(
            f"| {name} | {best[name]:.2f} s | {rate:.0f} MB/s | {best[name] / ours:.2f} "
            f"| {cpu:.2f} s | {peak:.0f} MB |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
