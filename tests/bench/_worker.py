"""One model in a process of its own, in the environment of a toolchain, run when it is told to.

`python -m tests.bench._worker ORDER`, where ORDER is the JSON of `tests.bench._race.Contender`.
Commands come as JSON lines on stdin, and each is answered by one line:

- `{"seconds": …, "least": …, "most": …}`: run the first row over and over; `{"taken": [ns, …],
  "cpu": ns}`, the wall's time of each run, and the processor's of one on average
- `{"answers": PATH}`: run all rows and save the outputs as .npz; `{}`

The first line, before any command, is `{"engine": name and version, "peak": bytes}`: the most that
was resident after the warm-up, before any batch was run.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgectl.engine.batches import fixed_batch, infer
from edgectl.engine.measure import peak_memory
from edgectl.engine.npz import read_npz
from edgectl.engine.session import Session, load_session
from edgectl.engine.signature import TensorSpec
from tests.bench._sources import load_source

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import TextIO

WARM_UP_RUNS = 5
BATCH = 32


def run_for(
    function: Callable[[], Any], seconds: float, least: int, most: int
) -> tuple[list[int], float]:
    """Nanoseconds of each run, for about so long, and of the processor for one on average.

    Two runs before are not counted: they find the data of another process in the caches.
    """
    function()
    function()
    taken: list[int] = []
    end = time.perf_counter() + seconds
    used = time.process_time_ns()
    while len(taken) < least or (len(taken) < most and time.perf_counter() < end):
        start = time.perf_counter_ns()
        function()
        taken.append(time.perf_counter_ns() - start)
    return taken, (time.process_time_ns() - used) / len(taken)


def _open(order: Mapping[str, Any]) -> Session:
    path = Path(order["model"])
    if order["engine"]:
        return load_session(path, engine=order["engine"], threads=1)
    specs = {
        side: [TensorSpec(s["name"], s["datatype"], tuple(s["shape"])) for s in order[side]]
        for side in ("inputs", "outputs")
    }
    return load_source(path, order["form"], specs["inputs"], specs["outputs"])


def _serve(order: Mapping[str, Any], out: TextIO) -> None:
    def say(answer: Mapping[str, Any]) -> None:
        out.write(json.dumps(answer) + "\n")
        out.flush()

    session = _open(order)
    arrays = read_npz(Path(order["data"]))
    rows = fixed_batch(session) or 1
    first = {spec.name: np.ascontiguousarray(arrays[spec.name][:rows]) for spec in session.inputs}
    for _ in range(WARM_UP_RUNS):
        session.run(first)
    say({"engine": session.engine, "peak": peak_memory()})
    for line in sys.stdin:
        command = json.loads(line)
        if "answers" in command:
            outputs: dict[str, Any] = dict(infer(session, arrays, batch=BATCH))
            np.savez(command["answers"], **outputs)
            say({})
        else:
            taken, cpu = run_for(lambda: session.run(first), **command)
            say({"taken": taken, "cpu": cpu})


if __name__ == "__main__":
    with os.fdopen(os.dup(1), "w") as answers:
        os.dup2(2, 1)  # Libraries print.
        _serve(json.loads(sys.argv[1]), answers)
