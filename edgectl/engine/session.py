"""A loaded model, whatever engine runs it, and the one way to load it."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Protocol, cast

from edgectl.engine.errors import EngineError, EngineUnavailableError, UnsupportedError
from edgectl.engine.options import EngineOptions

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from edgectl.engine.signature import ModelSignature, TensorSpec

MODEL_FILES: Mapping[str, tuple[str, ...]] = {
    "onnxruntime": ("model.onnx",),
    "openvino": ("model.xml",),
    "tensorrt": ("model.plan", "model.onnx"),
    "litert": ("model.tflite",),
    "tflm": ("model.tflite",),
    "coreml": ("model.mlpackage", "model.mlmodel"),
}
"""Engine to the names that the model's file can have in a model directory, the first that is there
counts. The engine `x` is adapted by the module `edgectl.engine.x`, which has `load(path, *,
options, threads)`."""


class Session(Protocol):
    """A model in memory. `run` may be called from several threads at once."""

    @property
    def engine(self) -> str:
        """Name and version, such as `onnxruntime 1.31.1`."""

    @property
    def providers(self) -> tuple[str, ...]:
        """The execution providers in use, first choice first."""

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """What the file itself says it takes; dimensions that it leaves open are -1."""

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """What the file itself says it gives."""

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Infer: one array per input name in, one per output name out.

        Raises InputError if the data does not fit, EngineError if the engine fails.
        """

    def close(self) -> None:
        """Free the model's memory and give it back to the operating system."""


class _Adapter(Protocol):
    def load(self, path: Path, *, options: EngineOptions, threads: int) -> Session: ...


def load_session(
    path: Path,
    *,
    engine: str = "onnxruntime",
    options: EngineOptions | None = None,
    threads: int = 1,
) -> Session:
    """Load a model file, or the one in a directory.

    A requested provider that this machine lacks is left out if `CPUExecutionProvider` is also
    requested (`Session.providers` then says what is in use); otherwise loading fails.

    Raises UnsupportedError for an unknown engine, an absent provider, or an operator that the
    engine lacks (with its node), EngineUnavailableError for an engine that is not on this machine,
    and EngineError for a file that is no model.
    """
    names = model_file_names(engine)
    if path.is_dir() and path.suffix != ".mlpackage":
        path = find_model_file(path, names)
    return _adapter(engine).load(path, options=options or EngineOptions(), threads=threads)


def model_file_names(engine: str) -> tuple[str, ...]:
    """The names that the model's file can have in a model directory, such as `model.onnx`.

    Raises UnsupportedError for an unknown engine.
    """
    try:
        return MODEL_FILES[engine]
    except KeyError:
        known = ", ".join(sorted(MODEL_FILES))
        raise UnsupportedError(f"engine {engine!r} is not one of: {known}") from None


def find_model_file(directory: Path, names: Sequence[str]) -> Path:
    """The model's file in a directory; raises EngineError if there is none."""
    for name in names:
        if (directory / name).exists():
            return directory / name
    raise EngineError(f"model directory {directory} has no {' or '.join(names)}")


def mismatches(session: Session, signature: ModelSignature) -> list[str]:
    """Where the model file disagrees with the signature that came with it; empty if nowhere.

    The signature may be narrower than the file (a fixed size where the file leaves it open), and
    may leave outputs unnamed; it may not promise what the file does not have.
    """
    return [
        *_differences("input", signature.inputs, session.inputs, complete=True),
        *_differences("output", signature.outputs, session.outputs, complete=False),
    ]


def _differences(
    role: str, declared: Sequence[TensorSpec], actual: Sequence[TensorSpec], *, complete: bool
) -> list[str]:
    found = {spec.name: spec for spec in actual}
    problems = []
    for spec in declared:
        other = found.pop(spec.name, None)
        if other is None:
            problems.append(f"the model has no {role} {spec.name!r}")
        elif other.datatype != spec.datatype:
            problems.append(
                f"{role} {spec.name!r} is {other.datatype} in the model, "
                f"{spec.datatype} in its signature"
            )
        elif not _shapes_agree(spec.shape, other.shape):
            problems.append(
                f"{role} {spec.name!r} has shape {list(other.shape)} in the model, "
                f"{list(spec.shape)} in its signature"
            )
    if complete:
        problems += [f"the model's {role} {name!r} is not in its signature" for name in found]
    return problems


def _shapes_agree(declared: Sequence[int], actual: Sequence[int]) -> bool:
    """An open dimension on either side agrees with anything; so does a shape the file leaves out
    altogether, which ONNX allows for outputs."""
    return not actual or (
        len(declared) == len(actual)
        and all(-1 in pair or pair[0] == pair[1] for pair in zip(declared, actual, strict=True))
    )


def _adapter(engine: str) -> _Adapter:
    try:
        return cast("_Adapter", importlib.import_module(f"edgectl.engine.{engine}"))
    except ImportError as error:
        raise EngineUnavailableError(
            f"the engine {engine} is not installed here: {error}"
        ) from error
