"""Resident memory of `edgectl agent run`: idle from its start, and idle after an update.

`python tests/bench/agent_memory.py` prints one JSON object, in MiB, beside what a bare Python
process of the same interpreter takes.
"""

from __future__ import annotations

import json
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
    """Measure with both kinds of registry."""
    result: dict[str, float] = {"bare python": bare_python()}
    with tempfile.TemporaryDirectory() as directory:
        fleet = Fleet(Path(directory), LayoutStore(Path(directory) / "registry"))
        result["layout, idle"] = agent(fleet, update=False)
        result["layout, after an update"] = agent(fleet, update=True)
    with tempfile.TemporaryDirectory() as directory, Registry() as registry:
        fleet = Fleet(Path(directory), registry.store())
        result["http, idle"] = agent(fleet, update=False)
        result["http, after an update"] = agent(fleet, update=True)
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
