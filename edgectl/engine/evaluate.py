"""Evaluate a model on labelled data by the engine that will serve it.

`python -m edgectl.engine.evaluate REQUEST.json`, where the request is `{"inputs": {"model": PATH,
"evaluation": PATH}, "params": {…}, "output": PATH}`, writes the result to `output`. Builders call
`evaluate_request` in their own environment.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgectl.engine import metrics, transforms
from edgectl.engine.batches import infer, row_count
from edgectl.engine.errors import EngineError, InputError
from edgectl.engine.golden import check_golden
from edgectl.engine.host import describe_host
from edgectl.engine.measure import measure_apart
from edgectl.engine.modeldir import file_size
from edgectl.engine.npz import read_npz
from edgectl.engine.options import EngineOptions
from edgectl.engine.session import load_session
from edgectl.engine.signature import TensorSpec

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from edgectl.engine.session import Session

DEFAULT_RUNS = 100
ENGINE_PARAMS = ("providers", "device", "workspace")
"""Params that an engine reads, as a signature's `engine` has them."""
_BATCH = 32


def evaluate_request(inputs: Mapping[str, Path], params: Mapping[str, Any]) -> dict[str, Any]:
    """Evaluate as the builder protocol asks.

    `inputs` has `model` (the file, or the directory with it), `evaluation` (an .npz with one array
    for each input and one of labels) and optionally `golden` (see `edgectl.engine.golden`).
    `params`: `labels` names the array of labels, `task` is `classification` or `regression`,
    `outputs` declares the outputs (the first is evaluated; `transforms` and `labels` of it are
    optional); optional are `engine` (onnxruntime), `providers`, `device`, `threads` (1), `runs`
    (100), `latency` (False: do not measure) and `goldenTolerance` (`absolute`, `relative`, `top1`).

    The result is `{"metrics": {…}, "samples": rows, "sizeBytes": …, "host": {…}}` and, where there
    is golden data, `"golden": {"problems": [sentence, …]}`: deterministic on one machine. Where
    measured, it also has `"measured": {"latency": {p50, p99, runs, threads, batch}, "loadSeconds",
    "peakMemoryBytes"}`. Raises EngineError and InputError.
    """
    model, data = Path(inputs["model"]), Path(inputs["evaluation"])
    engine = {key: params[key] for key in ENGINE_PARAMS if params.get(key)}
    engine["name"] = str(params.get("engine", "onnxruntime"))
    threads = int(params.get("threads", 1))
    options = EngineOptions.from_json(engine)
    session = load_session(model, engine=engine["name"], options=options, threads=threads)
    arrays = read_npz(data)
    result: dict[str, Any] = {
        "metrics": _metrics(session, arrays, params),
        "samples": row_count(session, arrays),
        "sizeBytes": file_size(model),
        "host": {**describe_host(), "engine": session.engine, "providers": list(session.providers)},
    }
    if "golden" in inputs:
        tolerance = params.get("goldenTolerance") or {}
        result["golden"] = {"problems": check_golden(session, Path(inputs["golden"]), tolerance)}
    session.close()
    if params.get("latency", True):
        result["measured"] = measure_apart(
            model,
            data,
            engine=engine,
            threads=threads,
            runs=int(params.get("runs", DEFAULT_RUNS)),
        )
    return result


def _metrics(
    session: Session, arrays: Mapping[str, NDArray[Any]], params: Mapping[str, Any]
) -> dict[str, float]:
    key = str(params["labels"])
    if key not in arrays:
        raise InputError(f"no array of labels {key!r}; there are: {', '.join(sorted(arrays))}")
    if len(arrays[key]) != row_count(session, arrays):
        raise InputError(f"{len(arrays[key])} labels for {row_count(session, arrays)} rows")
    output = _evaluated_output(session, params)
    raw = infer(session, arrays, batch=_BATCH)[output.name]
    scores = transforms.scores(output, raw)
    if scores.dtype.kind == "f" and not np.isfinite(scores).all():
        raise EngineError(f"output {output.name!r} holds NaN or infinite values")
    task = str(params["task"])
    if task == "classification":
        return metrics.classification(metrics.class_indices(arrays[key], output.labels), scores)
    if task == "regression":
        return metrics.regression(arrays[key], scores)
    raise InputError(f"task {task!r} has no metrics; known are classification and regression")


def _evaluated_output(session: Session, params: Mapping[str, Any]) -> TensorSpec:
    declared = params["outputs"][0]
    found = [spec for spec in session.outputs if spec.name == declared["name"]]
    if not found:
        names = ", ".join(spec.name for spec in session.outputs)
        raise EngineError(f"the model has no output {declared['name']!r}; it has: {names}")
    return TensorSpec(
        found[0].name,
        found[0].datatype,
        found[0].shape,
        tuple(declared.get("transforms", ())),
        tuple(declared.get("labels", ())),
    )


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
