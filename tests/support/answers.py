"""What models answer on this machine: a program that needs edgectl's engines and nothing else.

`python answers.py WORK OUTPUT VARIANT...`, where a variant is `<model>/<target>`. WORK has
`models/<model>/<target>/` as an image has it, `data/<model>.npz`, and maybe `samples/<model>/`.
Of each it writes the answers to all rows of the data, `OUTPUT/<model>/<target>.npz`, and what the
device's warm-up says, `OUTPUT/<model>/<target>.json`.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np

from edgectl.engine.batches import infer
from edgectl.engine.modeldir import ModelDirectory
from edgectl.engine.npz import read_npz
from edgectl.engine.options import EngineOptions
from edgectl.engine.session import Session, load_session
from edgectl.engine.warmup import warm_up

_BATCH = 32


def answer(work: Path, output: Path, variant: str) -> None:
    """Run one variant on its data and through the warm-up."""
    directory = work / "models" / variant
    model = variant.partition("/")[0]
    session = load(directory)
    answers = infer(session, read_npz(work / "data" / f"{model}.npz"), batch=_BATCH)
    session.close()
    samples = work / "samples" / model
    report = warm_up(directory, runs=1, samples=samples if samples.is_dir() else None)
    place = output / variant
    place.parent.mkdir(parents=True, exist_ok=True)
    np.savez(place.with_suffix(".npz"), allow_pickle=False, **answers)
    place.with_suffix(".json").write_text(json.dumps(report))


def load(directory: Path) -> Session:
    """The model as an evaluation for an arm64 target loads it, whatever this machine is."""
    found = ModelDirectory.open(directory)
    engine = {**found.signature.engine, "architecture": "arm64"}
    options = EngineOptions.from_json(engine)
    return load_session(found.model_file, engine=engine["name"], options=options)


if __name__ == "__main__":
    for name in sys.argv[3:]:
        answer(Path(sys.argv[1]), Path(sys.argv[2]), name)
