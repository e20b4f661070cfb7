"""Resident memory of `edgectl agent run`: idle from its start, and idle after an update.

`python -m tests.bench agent_memory` prints a table, in MiB, beside what a bare Python
process of the same interpreter takes.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path
from threading import Event

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from edgectl.agent.loop import poll_once  # noqa: E402
from edgectl.agent.report import status  # noqa: E402
from edgectl.oci.layout import LayoutStore  # noqa: E402
from tests.support.fleet import Fleet  # noqa: E402
from tests.support.registry import Registry  # noqa: E402

EDGECTL = str(Path(sys.executable).with_name("edgectl"))


def resident(pid: int) -> float:
    """Resident memory of a process in MiB."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return round(pages * 4096 / (1 << 20), 1)


def bare_python() -> float:
    """A Python process that does nothing."""
    command = [sys.executable, "-c", "import time; time.sleep(60)"]
    with subprocess.Popen(command) as process:
        time.sleep(1)
        value = resident(process.pid)
        process.kill()
    return value


def agent(fleet: Fleet, *, update: bool) -> float:
    """An agent after its first poll, which finds an update or nothing."""
    poll = {"interval": "1h"}
    config, device = fleet.config(poll=poll), fleet.device(poll=poll)
    fleet.release(fleet.publish_model(version=f"1.0.{fleet.generation}"))
    if not update:
        poll_once(config, Event())
    before = status(config)["polled"]
    time.sleep(1.1)  # `polled` counts in seconds
    command = [EDGECTL, "agent", "run", "--config", str(device)]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 60
        while status(config)["polled"] == before and time.monotonic() < deadline:
            time.sleep(0.1)
        time.sleep(1)
        value = resident(process.pid)
        process.terminate()
    return value


def main() -> None:
    """Measure with both kinds of registry, and print a table."""
    bare = bare_python()
    print("| MiB resident | idle | after an update | idle / bare Python |\n|---|---:|---:|---:|")
    with tempfile.TemporaryDirectory() as directory:
        fleet = Fleet(Path(directory), LayoutStore(Path(directory) / "registry"))
        _row("`edgectl agent run`, layout registry", fleet, bare)
    with tempfile.TemporaryDirectory() as directory, Registry() as registry:
        _row("`edgectl agent run`, HTTP registry", Fleet(Path(directory), registry.store()), bare)
    print(f"| bare Python | {bare:.1f} | | 1.0 |")


def _row(title: str, fleet: Fleet, bare: float) -> None:
    idle, updated = agent(fleet, update=False), agent(fleet, update=True)
    print(f"| {title} | {idle:.1f} | {updated:.1f} | {idle / bare:.1f} |")


if __name__ == "__main__":
    main()
