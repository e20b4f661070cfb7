"""Real data in a builder: calibration sets and samples, checked against the declared inputs.

Data sets are npz files with one array for each input of the model. Needs numpy.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from edgectl.build.kit import ranges
from edgectl.build.kit.wording import listed
from edgectl.build.protocol import RefusalError, Task
from edgectl.engine import npz
from edgectl.engine.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

MAX_DATA_BYTES = 4 << 30
MAX_SAMPLES = 32
RANDOM_ROWS = 4
RANDOM_SIZE = 16
"""Size given to a free dimension (not the batch) where random inputs have to be made."""

_DTYPES = {
    "BOOL": "bool", "UINT8": "uint8", "UINT16": "uint16", "UINT32": "uint32", "UINT64": "uint64",
    "INT8": "int8", "INT16": "int16", "INT32": "int32", "INT64": "int64",
    "FP16": "float16", "FP32": "float32", "FP64": "float64",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Samples:
    """Inputs to compare two forms of a model on."""

    arrays: dict[str, NDArray[Any]]
    """Input name to [rows, ...]."""
    origin: str
    """`evaluation`, `calibration`, or `random` where the request has no data."""

    @property
    def rows(self) -> int:
        """How many samples there are."""
        return len(next(iter(self.arrays.values())))


def read_npz(path: Path) -> dict[str, NDArray[Any]]:
    """All arrays of an npz, bounded, without pickle; refuses what is none (`data-unreadable`)."""
    try:
        return npz.read_npz(path, max_bytes=MAX_DATA_BYTES)
    except InputError as error:
        raise RefusalError(
            "data-unreadable",
            str(error).replace(str(path), path.name),
            hint="write it with numpy.savez, plain numeric arrays only",
        ) from error


def real_inputs(task: Task, most: int = MAX_SAMPLES) -> Samples:
    """The first rows of the evaluation data, else of the calibration data, else seeded noise.

    Every array has the datatype and shape that `params["inputs"]` declares; refuses data that has
    not (`input-missing`, `data-shape`, `data-count`), and as `check_ranges` does. A fixed batch
    size keeps whole batches only.
    """
    specs = task.params["inputs"]
    for role in ("evaluation", "calibration"):
        if role in task.inputs:
            check_ranges(task)
            path = task.inputs[role]
            arrays = _fitting(read_npz(path), specs, path.name)
            batch = fixed_batch(specs)
            rows = min(most, *(len(values) for values in arrays.values()))
            if rows < batch:
                raise RefusalError(
                    "data-count",
                    f"{path.name} has {rows} rows, fewer than one batch of {batch}",
                    hint="add rows: about a hundred representative samples are enough",
                )
            rows -= rows % batch
            return Samples({name: values[:rows] for name, values in arrays.items()}, role)
    return Samples({spec["name"]: _noise(spec) for spec in specs}, "random")


def calibration(task: Task) -> dict[str, NDArray[Any]]:
    """The whole calibration set, one array for each declared input, all of as many rows.

    Refuses a request without one (`no-calibration`), and data that is mislabelled, of another
    shape or datatype, not finite, or constant (`calibration-*`, `input-missing`).
    """
    path = task.inputs.get("calibration")
    if path is None:
        raise RefusalError(
            "no-calibration",
            "int8 needs calibration data and the Model names none",
            hint="set spec.calibration.path to an npz with one array per input",
        )
    specs = task.params["inputs"]
    arrays = _fitting(read_npz(path), specs, path.name, code="calibration-shape")
    counts = {name: len(values) for name, values in arrays.items()}
    batch = fixed_batch(specs)
    if len(set(counts.values())) != 1 or 0 in counts.values() or min(counts.values()) % batch:
        raise RefusalError(
            "calibration-count",
            f"{path.name}: {counts} samples are not one or more whole batches of {batch}",
            node=specs[0]["name"],
            hint="about a hundred representative samples are enough",
        )
    for name, values in arrays.items():
        if values.dtype.kind == "f":
            _check_values(path.name, name, values)
    return arrays


def chosen_method(params: Mapping[str, Any], known: Sequence[str]) -> tuple[str, dict[str, Any]]:
    """How an engine's quantiser takes ranges, and what the variant's metadata says of it.

    A Model names one method for all of its engines; a quantiser that lacks it takes the first of
    its own, `known`, and says so: `{"calibration": {"method": …}}`, with `asked` where it differs.
    """
    asked = str(params.get("method") or known[0])
    method = asked if asked in known else known[0]
    facts = {"method": method} if method == asked else {"method": method, "asked": asked}
    return method, {"calibration": facts}


def check_ranges(task: Task) -> None:
    """Refuse calibration data whose values are not where those of the evaluation data are
    (`calibration-range`); see `edgectl.build.kit.ranges`. Nothing without both of them."""
    if {"calibration", "evaluation"} <= task.inputs.keys():
        data, real = (read_npz(task.inputs[role]) for role in ("calibration", "evaluation"))
        names = [spec["name"] for spec in task.params["inputs"]]
        ranges.check(data, real, names, task.inputs["calibration"].name)


def fixed_batch(specs: list[dict[str, Any]]) -> int:
    """The batch size that the declared inputs fix; 1 where the batch is free."""
    return max(1, 1, *(int(spec["shape"][0]) for spec in specs if spec["shape"]))


def _check_values(file: str, name: str, values: NDArray[Any]) -> None:
    if not np.isfinite(values).all():
        raise RefusalError(
            "calibration-not-finite",
            f"{file}: array {name!r} holds NaN or infinite values",
            node=name,
            hint="make the data with the pre-processing that the model was trained with",
        )
    if len(values) > 1 and values.size > 1 and values.min() == values.max():
        raise RefusalError(
            "calibration-constant",
            f"{file}: every value of array {name!r} is {values.flat[0]:g}: no range can be taken",
            node=name,
            hint="use real samples, made with the pre-processing that the model was trained with",
        )


def _fitting(
    arrays: Mapping[str, NDArray[Any]],
    specs: list[dict[str, Any]],
    file: str,
    code: str = "data-shape",
) -> dict[str, NDArray[Any]]:
    """The arrays of the declared inputs, each of its datatype and shape."""
    found = {}
    for spec in specs:
        name = spec["name"]
        if name not in arrays:
            raise RefusalError(
                "input-missing",
                f"{file} has no array {name!r}; it has {listed(list(arrays))}",
                node=name,
                hint=f"call the array {name!r}, or correct the name in spec.inputs of the Model",
            )
        values = arrays[name]
        fits = values.ndim == len(spec["shape"]) and all(
            wanted in (-1, size)
            for wanted, size in zip(spec["shape"][1:], values.shape[1:], strict=True)
        )
        wanted_dtype = _DTYPES.get(spec["datatype"])
        if not fits or (wanted_dtype is not None and values.dtype != wanted_dtype):
            raise RefusalError(
                code,
                f"{file}: array {name!r} is {values.dtype} {list(values.shape)}, spec.inputs "
                f"declares {wanted_dtype or spec['datatype']} {[-1, *spec['shape'][1:]]}",
                node=name,
                hint="make the data of that datatype and shape, or correct spec.inputs of the "
                "Model if the model takes what the data has",
            )
        found[name] = values
    return found


def _noise(spec: Mapping[str, Any]) -> NDArray[Any]:
    """Seeded by the input's name, so that two builds compare on the same values."""
    dtype = _DTYPES.get(spec["datatype"])
    if dtype is None:
        raise RefusalError(
            "no-samples",
            f"input {spec['name']!r} is {spec['datatype']}, and there is no data to check it on",
            node=spec["name"],
            hint="set spec.evaluation or spec.calibration of the Model",
        )
    first, *rest = spec["shape"] or (1,)
    shape = (RANDOM_ROWS if first == -1 else first, *(RANDOM_SIZE if n == -1 else n for n in rest))
    seed = int.from_bytes(hashlib.sha256(spec["name"].encode()).digest()[:8], "big")
    values = np.random.default_rng(seed).random(math.prod(shape)).reshape(shape)
    return values.astype(dtype)  # 0 to 1, which is 0 for whole numbers: a valid index of anything
