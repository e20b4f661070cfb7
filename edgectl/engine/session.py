"""A loaded model, whatever engine runs it, and the one way to load it."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Protocol, cast

from edgectl.engine.errors import UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from edgectl.engine.signature import ModelSignature, TensorSpec

ENGINES = {"onnxruntime": "edgectl.engine.onnxruntime"}
"""Engine name to the module that adapts it; each has `load(path, *, providers, threads)` and
`MODEL_FILE`, the name of the model's file in a model directory."""

DEFAULT_PROVIDERS = ("CPUExecutionProvider",)


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
    MODEL_FILE: str

    def load(self, path: Path, *, providers: Sequence[str], threads: int) -> Session: ...


def load_session(
    path: Path,
    *,
    engine: str = "onnxruntime",
    providers: Sequence[str] = DEFAULT_PROVIDERS,
    threads: int = 1,
) -> Session:
    """Load a model file.

    A requested provider that this machine lacks is left out if `CPUExecutionProvider` is also
    requested (`Session.providers` then says what is in use); otherwise loading fails.

    Raises UnsupportedError for an unknown engine, an absent provider, or an operator that the
    engine lacks (with its node), and EngineError for a file that is no model.
    """
    return _adapter(engine).load(path, providers=providers, threads=threads)


def model_file_name(engine: str) -> str:
    """The name that the model's file has in a model directory, such as `model.onnx`."""
    return _adapter(engine).MODEL_FILE


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
        module = ENGINES[engine]
    except KeyError:
        known = ", ".join(sorted(ENGINES))
        raise UnsupportedError(f"engine {engine!r} is not one of: {known}") from None
    return cast("_Adapter", importlib.import_module(module))
