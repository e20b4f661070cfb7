"""Data sets: npz files with one array for each input of the model."""

from __future__ import annotations

import zipfile
from typing import TYPE_CHECKING

import numpy as np

from edgectl.build.protocol import RefusalError, Task
from wording import first_line, listed

if TYPE_CHECKING:
    from pathlib import Path

MAX_DATA_BYTES = 4 << 30
MAX_CHECKED_SAMPLES = 256


def read_npz(path: Path) -> dict[str, np.ndarray]:
    """All arrays of an npz, bounded, without pickle."""
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(entry.file_size for entry in archive.infolist())
        if size > MAX_DATA_BYTES:
            raise ValueError(f"{size} bytes unpacked, more than {MAX_DATA_BYTES}")
        with np.load(path, allow_pickle=False) as data:
            return {name: data[name] for name in data.files}
    except (ValueError, OSError, zipfile.BadZipFile, KeyError) as error:
        raise RefusalError(
            "data-unreadable",
            f"{path.name} is not a readable npz: {first_line(error)}",
            hint="write it with numpy.savez, plain numeric arrays only",
        ) from error


def first_samples(task: Task) -> dict[str, np.ndarray]:
    """Some real inputs to compare models on; empty if the request has no data."""
    names = [spec["name"] for spec in task.params["inputs"]]
    for role in ("evaluation", "calibration"):
        if role in task.inputs:
            arrays = read_npz(task.inputs[role])
            missing = [name for name in names if name not in arrays]
            if missing:
                raise RefusalError(
                    "input-missing",
                    f"{task.inputs[role].name} has no array {missing[0]!r}; "
                    f"it has {listed(list(arrays))}",
                    node=missing[0],
                    hint="name the array of each input as the model does",
                )
            return {name: arrays[name][:MAX_CHECKED_SAMPLES] for name in names}
    return {}
