"""The evaluate action of every backend: the model, run by the engine that will serve it."""

from __future__ import annotations

from edgectl.build.protocol import Done, RefusalError, Task, report


def evaluate(task: Task) -> Done:
    """Measure a model by the engine that serves it on the device.

    Roles and params are those of `edgectl.engine.evaluate.evaluate_request`, whose result is the
    metadata. Needs numpy and the engine's own package.
    """
    from edgectl.engine.errors import EngineError
    from edgectl.engine.evaluate import evaluate_request

    report(0.1, "measuring")
    try:
        return Done({}, evaluate_request(task.inputs, task.params))
    except EngineError as error:
        raise RefusalError(
            "evaluation-refused",
            str(error),
            node=getattr(error, "node", None),
            hint="make the evaluation and golden data as spec.inputs, spec.evaluation and "
            "spec.golden of the Model say",
        ) from error


def deferred(task: Task, engine: str, reason: str) -> Done:
    """The evaluation of a model that cannot run on this machine: nothing but its size is known.

    `reason` is a sentence for the report: why, and what the device does instead.
    """
    from edgectl.engine.host import describe_host
    from edgectl.engine.modeldir import file_size

    host = {**describe_host(), "engine": engine, "providers": []}
    facts = {"metrics": {}, "samples": 0, "sizeBytes": file_size(task.inputs["model"])}
    return Done({}, {**facts, "host": host, "deferred": reason})
