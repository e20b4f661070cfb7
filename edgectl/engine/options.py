"""How an engine is to run a model, beside its threads."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

DEFAULT_PROVIDERS = ("CPUExecutionProvider",)


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """Each engine reads what concerns it."""

    providers: tuple[str, ...] = DEFAULT_PROVIDERS
    """ONNX Runtime's execution providers, the preferred first."""
    device: str = ""
    """OpenVINO's device (`CPU`, `GPU`, `NPU`, `AUTO`), or TensorRT's (`GPU`, `DLA:0`); empty for
    the engine's default."""
    cache: Path | None = None
    """Directory for what the engine compiles on this machine; None for no cache."""
    extra: Mapping[str, Any] = field(default_factory=dict)
    """What else the signature says of the engine, such as `workspace` in bytes; in an evaluation
    also `architecture`, that of the device whose answers are wanted."""

    @classmethod
    def from_json(cls, engine: Mapping[str, Any], cache: Path | None = None) -> Self:
        """From the `engine` object of a signature, or the params of a builder's request."""
        known = {"name", "version", "providers", "device"}
        return cls(
            tuple(engine.get("providers") or DEFAULT_PROVIDERS),
            str(engine.get("device") or ""),
            cache,
            {key: value for key, value in engine.items() if key not in known},
        )
