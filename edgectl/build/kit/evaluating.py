"""The evaluate action of every backend: the model, run by the engine that will serve it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgectl.build.kit.data import check_ranges
from edgectl.build.protocol import Done, RefusalError, Task, report

if TYPE_CHECKING:
    from pathlib import Path

    from edgectl.engine.errors import EngineError

_DATA_HINT = (
    "make the evaluation and golden data as spec.inputs, spec.evaluation and spec.golden of the "
    "Model say"
)


def evaluate(task: Task) -> Done:
    """Measure a model by the engine that serves it on the device.

    Roles and params are those of `edgectl.engine.evaluate.evaluate_request`, whose result is the
    metadata. Needs numpy and the engine's own package. Refuses as `refusal` says, and calibration
    data, where the request has any, that is not of the evaluation data's range.
    """
    from edgectl.engine.errors import EngineError
    from edgectl.engine.evaluate import evaluate_request

    check_ranges(task)
    report(0.1, "measuring")
    try:
        return Done({}, evaluate_request(task.inputs, task.params))
    except EngineError as error:
        raise refusal(error, *task.inputs.values()) from error


def refusal(error: EngineError, *files: Path) -> RefusalError:
    """What an engine says of a model or its data, as a refusal with its remedy: data that do not
    fit (`data-refused`), what the engine lacks (`engine-refuses`), a bad file (`does-not-load`).

    `files` are shown by their names: where they lie on this machine is nobody's concern.
    """
    from edgectl.engine.errors import EngineUnavailableError, InputError, UnsupportedError

    if isinstance(error, InputError):
        code, hint = "data-refused", _DATA_HINT
    elif isinstance(error, EngineUnavailableError):
        code, hint = "engine-unavailable", "leave targets with this engine out of spec.targets here"
    elif isinstance(error, UnsupportedError):
        code, hint = "engine-refuses", "replace what it names, or use a target with another engine"
    else:
        code, hint = "does-not-load", "is the file whole? save or convert the model again"
    message = str(error)
    for file in files:
        message = message.replace(str(file), file.name)
    return RefusalError(code, message, node=getattr(error, "node", None), hint=hint)


def deferred(task: Task, engine: str, reason: str) -> Done:
    """The evaluation of a model that cannot run on this machine: nothing but its size is known.

    `reason` is a sentence for the report: why, and what the device does instead.
    """
    from edgectl.engine.host import describe_host
    from edgectl.engine.modeldir import file_size

    host = {**describe_host(), "engine": engine, "providers": []}
    facts = {"metrics": {}, "samples": 0, "sizeBytes": file_size(task.inputs["model"])}
    return Done({}, {**facts, "host": host, "deferred": reason})
