"""The model of a request: a .tflite file, or a directory with one."""

from __future__ import annotations

from edgectl.build.protocol import RefusalError, Task
from edgectl.engine.errors import EngineError
from edgectl.engine.session import find_model_file, model_file_names
from edgectl.engine.tflm_file import Model, read_model

MAX_BYTES = 64 << 20
"""More than any microcontroller has; what a C array of it would still compile as."""


def model_bytes(task: Task) -> tuple[bytes, Model]:
    """The bytes of the file, and what is in it; refuses what is no TFLite model."""
    path = task.inputs["model"]
    try:
        if path.is_dir():
            path = find_model_file(path, model_file_names("tflm"))
        if path.stat().st_size > MAX_BYTES:
            raise RefusalError(
                "model-too-large",
                f"{task.model} has {path.stat().st_size} bytes; more than {MAX_BYTES} fit no "
                "microcontroller",
                hint="train a smaller model, or choose a target with another engine",
            )
        content = path.read_bytes()
        return content, read_model(content, task.model)
    except EngineError as error:
        raise RefusalError(
            "not-tflite",
            str(error),
            hint="give a .tflite file, whole, as the litert toolchain or the TFLite converter "
            "writes it",
        ) from error
