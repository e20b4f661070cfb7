"""A model as it lies on a device: `model.onnx`, `signature.json`, `golden.npz`, maybe more."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edgectl.engine.errors import EngineError
from edgectl.engine.session import (
    DEFAULT_PROVIDERS,
    Session,
    load_session,
    mismatches,
    model_file_name,
)
from edgectl.engine.signature import ModelSignature

if TYPE_CHECKING:
    from collections.abc import Sequence

SIGNATURE_FILE = "signature.json"
GOLDEN_FILE = "golden.npz"

_MAX_SIGNATURE_BYTES = 4 << 20


@dataclass(frozen=True, slots=True)
class ModelDirectory:
    """The files of one model, found and named; nothing is loaded yet."""

    path: Path
    signature: ModelSignature
    model_file: Path
    golden_file: Path | None
    """None if the model came without golden data."""

    @classmethod
    def open(cls, path: Path) -> ModelDirectory:
        """Read the signature and find the files; raises EngineError for what is missing or bad."""
        path = Path(path)
        signature = read_signature(path / SIGNATURE_FILE)
        model_file = path / model_file_name(str(signature.engine.get("name", "onnxruntime")))
        golden = path / GOLDEN_FILE
        if not model_file.is_file():
            raise EngineError(f"model directory {path} has no {model_file.name}")
        return cls(path, signature, model_file, golden if golden.is_file() else None)

    def load(self, *, providers: Sequence[str] | None = None, threads: int = 1) -> Session:
        """Load the model with the engine and the providers that its signature names.

        Raises EngineError as `load_session` does, and if the file is not what the signature says.
        """
        engine = self.signature.engine
        wanted = providers or engine.get("providers") or DEFAULT_PROVIDERS
        session = load_session(
            self.model_file,
            engine=str(engine.get("name", "onnxruntime")),
            providers=tuple(wanted),
            threads=threads,
        )
        if problems := mismatches(session, self.signature):
            session.close()
            raise EngineError(f"{self.model_file}: {'; '.join(problems)}")
        return session


def file_size(path: Path) -> int:
    """Bytes of a model: of the file, or of all files of the directory that it is."""
    if path.is_dir():
        return sum(each.stat().st_size for each in path.rglob("*") if each.is_file())
    return path.stat().st_size


def read_signature(path: Path) -> ModelSignature:
    """Read a `signature.json`; raises EngineError if it is missing, too large or malformed."""
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_SIGNATURE_BYTES + 1)
    except OSError as error:
        raise EngineError(f"cannot read the model's signature {path}: {error.strerror}") from error
    if len(data) > _MAX_SIGNATURE_BYTES:
        raise EngineError(f"{path} is larger than {_MAX_SIGNATURE_BYTES} bytes")
    try:
        return ModelSignature.from_json(data)
    except ValueError as error:
        raise EngineError(f"{path}: {error}") from error
