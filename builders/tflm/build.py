"""The TensorFlow Lite Micro toolchain: compile (check, measure, emit a project) and evaluate.

The model is not changed: a microcontroller runs the full-integer file that the litert toolchain
made. What is added is the knowledge that it will run, in how much memory, and the sources around
it, the same byte for byte when the same request runs again.
"""

from __future__ import annotations

import dataclasses

from compiling import compile_model
from edgectl.build.kit.evaluating import evaluate
from edgectl.build.protocol import Done, Task, main, report
from measuring import measure_arena
from reading import model_bytes


def evaluate_model(task: Task) -> Done:
    """Measure a model by the interpreter, and the arena that it takes (`arenaBytes`)."""
    done = evaluate(task)
    report(0.9, "measuring the arena")
    content, model = model_bytes(task)
    arena = measure_arena(content, model, task.model)
    return dataclasses.replace(done, metadata={**done.metadata, "arenaBytes": arena})


if __name__ == "__main__":
    main({"compile": compile_model, "evaluate": evaluate_model})
