"""What can go wrong in the engine: the model's fault, the caller's, or a missing feature.

The engine runs inside builder environments too, which have nothing else of edgectl, so these
classes stand apart from `edgectl.errors`; whoever calls the engine translates them.
"""

from __future__ import annotations


class EngineError(Exception):
    """The model cannot be loaded or run; the message says which file, and why."""


class InputError(EngineError):
    """The data handed in is at fault, not the model: shape, datatype, value, or encoding."""


class UnsupportedError(EngineError):
    """The engine lacks something that the model needs.

    `operator` and `node` name the place in the graph where the engine says it.
    """

    def __init__(
        self, message: str, *, operator: str | None = None, node: str | None = None
    ) -> None:
        super().__init__(message)
        self.operator = operator
        self.node = node


class EngineUnavailableError(UnsupportedError):
    """The engine itself, or the hardware that it runs on, is not on this machine."""
