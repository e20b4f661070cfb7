"""The evaluate action."""

from __future__ import annotations

from edgectl.build.protocol import Done, RefusalError, Task, report


def evaluate(task: Task) -> Done:
    """Measure a model by the engine that serves it on the device."""
    from edgectl.engine.errors import EngineError
    from edgectl.engine.evaluate import evaluate_request

    report(0.1, "measuring")
    try:
        return Done({}, evaluate_request(task.inputs, task.params))
    except EngineError as error:
        raise RefusalError(
            "evaluation-refused",
            str(error),
            hint="make the evaluation and golden data as spec.inputs, spec.evaluation and "
            "spec.golden of the Model say",
        ) from error
