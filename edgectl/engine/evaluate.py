"""Evaluate a model on labelled data by the engine that will serve it.

`python -m edgectl.engine.evaluate REQUEST.json`, where the request is `{"inputs": {"model": PATH,
"evaluation": PATH}, "params": {…}, "output": PATH}`, writes the result to `output`. Builders call
`evaluate_request` in their own environment.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgectl.engine.batches import infer, row_count
from edgectl.engine.errors import EngineError, InputError
from edgectl.engine.golden import check_golden, similarity
from edgectl.engine.host import describe_host
from edgectl.engine.measure import measure_apart
from edgectl.engine.modeldir import file_size
from edgectl.engine.npz import read_npz
from edgectl.engine.options import EngineOptions
from edgectl.engine.renamed import under_names
from edgectl.engine.scoring import Answers, own_metric, score
from edgectl.engine.session import load_session
from edgectl.engine.tasks import COSINE

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from edgectl.engine.session import Session
    from edgectl.engine.signature import TensorSpec

DEFAULT_RUNS = 100
ENGINE_PARAMS = ("providers", "device", "workspace", "optimizations", "architecture")
"""Params that an engine reads, as a signature's `engine` has them."""
_BATCH = 32


def evaluate_request(inputs: Mapping[str, Path], params: Mapping[str, Any]) -> dict[str, Any]:
    """Evaluate as the builder protocol asks.

    `inputs` has `model` (the file, or the directory with it), `evaluation` (an .npz with one array
    for each input and one of labels), optionally `golden` (see `edgectl.engine.golden`),
    `calibration` (whose rows may not be among those of the evaluation), and `metric/NAME` for each
    of the user's own. `params`: `labels` names the array of labels, `task` is one of
    `edgectl.engine.tasks`, `outputs` declares the outputs (the first is scored; `transforms` and
    `labels` are optional); optional are `engine` (onnxruntime), `providers`, `device`, `threads`
    (1), `runs` (100), `latency` (False: do not measure), `power` (watts, for an estimate of energy
    where it cannot be read), `architecture` (OCI's name of the device's, whose arithmetic is to be
    used), `metrics` (name to function, see `edgectl.engine.scoring.own_metric`),
    `goldenTolerance` (`absolute`, `relative`, `top1`) and `byPosition` (the model's tensors may
    have names of their own and take those of `inputs` and `outputs`).

    The result is `{"metrics": {…}, "samples": rows, "sizeBytes": …, "host": {…}}` and, where there
    is golden data, `"golden": {"problems": [sentence, …]}` and the metric `cosine`: deterministic
    on one machine. Where measured, it also has `"measured"`, as `edgectl.engine.measure` says.
    Raises EngineError and InputError.
    """
    model, data = Path(inputs["model"]), Path(inputs["evaluation"])
    engine = {key: params[key] for key in ENGINE_PARAMS if params.get(key)}
    engine["name"] = str(params.get("engine", "onnxruntime"))
    threads = int(params.get("threads", 1))
    options = EngineOptions.from_json(engine)
    session = load_session(model, engine=engine["name"], options=options, threads=threads)
    if params.get("byPosition"):
        names = [[tensor["name"] for tensor in params[side]] for side in ("inputs", "outputs")]
        session = under_names(session, *names)
    arrays = read_npz(data)
    if "calibration" in inputs:
        _check_apart(arrays, Path(inputs["calibration"]), session)
    result: dict[str, Any] = {
        "metrics": _metrics(session, arrays, inputs, params),
        "samples": row_count(session, arrays),
        "sizeBytes": file_size(model),
        "host": {**describe_host(), "engine": session.engine, "providers": list(session.providers)},
    }
    if "golden" in inputs:
        golden, tolerance = Path(inputs["golden"]), params.get("goldenTolerance") or {}
        result["golden"] = {"problems": check_golden(session, golden, tolerance)}
        result["metrics"][COSINE] = similarity(session, golden)
    session.close()
    if params.get("latency", True):
        result["measured"] = measure_apart(
            model,
            data,
            engine=engine,
            threads=threads,
            runs=int(params.get("runs", DEFAULT_RUNS)),
            power=params.get("power"),
        )
    return result


def _metrics(
    session: Session,
    arrays: Mapping[str, NDArray[Any]],
    inputs: Mapping[str, Path],
    params: Mapping[str, Any],
) -> dict[str, float]:
    key = str(params["labels"])
    if key not in arrays:
        raise InputError(
            f"{inputs['evaluation'].name} has no array of labels {key!r}, which "
            f"spec.evaluation.labels says; there are: {', '.join(sorted(arrays))}"
        )
    if len(arrays[key]) != row_count(session, arrays):
        raise InputError(f"{len(arrays[key])} labels for {row_count(session, arrays)} rows")
    outputs = infer(session, arrays, batch=_BATCH)
    answers = Answers(arrays, key, session.inputs, _declared(session, params), outputs)
    found = score(str(params["task"]), answers)
    for name, function in sorted(dict(params.get("metrics", {})).items()):
        found[name] = own_metric(inputs[f"metric/{name}"], function, answers)
    return found


def _declared(session: Session, params: Mapping[str, Any]) -> tuple[TensorSpec, ...]:
    """The session's outputs with the transforms and labels that the manifest declares."""
    found = {spec.name: spec for spec in session.outputs}
    declared = []
    for output in params["outputs"]:
        if output["name"] not in found:
            names = ", ".join(found)
            raise EngineError(f"the model has no output {output['name']!r}; it has: {names}")
        declared.append(
            dataclasses.replace(
                found[output["name"]],
                transforms=tuple(output.get("transforms", ())),
                labels=tuple(output.get("labels", ())),
            )
        )
    return tuple(declared)


def _check_apart(arrays: Mapping[str, NDArray[Any]], calibration: Path, session: Session) -> None:
    """Raises InputError if a row that the model is measured on is one that it was fitted to."""
    names = [spec.name for spec in session.inputs]
    seen = _rows(read_npz(calibration), names)
    shared = len(seen & _rows(arrays, names))
    if shared:
        raise InputError(
            f"{shared} rows of the evaluation data are calibration data too: take them out of one"
        )


def _rows(arrays: Mapping[str, NDArray[Any]], names: Sequence[str]) -> set[bytes]:
    """A digest of each row of all inputs together."""
    columns = [np.ascontiguousarray(arrays[name]) for name in names if name in arrays]
    if len(columns) != len(names):
        return set()
    return {
        hashlib.sha256(b"".join(column[row].tobytes() for column in columns)).digest()
        for row in range(min(len(column) for column in columns))
    }


def _main(request_file: Path) -> int:
    request = json.loads(request_file.read_text(encoding="utf-8"))
    inputs = {role: Path(path) for role, path in request["inputs"].items()}
    try:
        result = evaluate_request(inputs, request["params"])
    except EngineError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    Path(request["output"]).write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(_main(Path(sys.argv[1])))
