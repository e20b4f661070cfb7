"""A model as it lies on a device: its file, `signature.json`, `golden.npz`, maybe assets."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edgectl.engine.errors import EngineError
from edgectl.engine.options import EngineOptions
from edgectl.engine.session import (
    Session,
    find_model_file,
    load_session,
    mismatches,
    model_file_names,
)
from edgectl.engine.signature import ModelSignature

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
        engine = str(signature.engine.get("name", "onnxruntime"))
        model_file = find_model_file(path, model_file_names(engine))
        golden = path / GOLDEN_FILE
        return cls(path, signature, model_file, golden if golden.is_file() else None)

    def load(self, *, threads: int = 1, cache: Path | None = None) -> Session:
        """Load the model with the engine that its signature names, as it says.

        `cache` is a directory for what the engine compiles on this machine.

        Raises EngineError as `load_session` does, and if the file is not what the signature says.
        """
        engine = self.signature.engine
        session = load_session(
            self.model_file,
            engine=str(engine.get("name", "onnxruntime")),
            options=EngineOptions.from_json(engine, cache),
            threads=threads,
        )
        if problems := mismatches(session, self.signature):
            session.close()
            raise EngineError(f"{self.model_file}: {'; '.join(problems)}")
        return session


def file_size(path: Path) -> int:
    """Bytes of a model: of the file, or of the files named `model.*` of its directory."""
    if path.is_file():
        return path.stat().st_size
    files = (each for each in path.rglob("*") if each.is_file())
    return sum(
        each.stat().st_size
        for each in files
        if path.suffix == ".mlpackage" or each.relative_to(path).parts[0].startswith("model.")
    )


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
