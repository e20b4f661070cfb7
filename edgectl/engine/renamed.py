"""A session under the names that its caller declares: a source as it came has names of its own."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from edgectl.engine.errors import EngineError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from edgectl.engine.session import Session
    from edgectl.engine.signature import TensorSpec


def under_names(session: Session, inputs: Sequence[str], outputs: Sequence[str]) -> Session:
    """The session with its tensors named as declared: by name where it has all of the names, else
    by position, as builders name them. No names leave a side as it is.

    Raises EngineError where their numbers differ.
    """
    takes = _pairs("inputs", session.inputs, inputs)
    gives = _pairs("outputs", session.outputs, outputs)
    if all(own == name for own, name in (takes | gives).items()):
        return session
    return _Renamed(session, takes, gives)


def _pairs(what: str, specs: Sequence[TensorSpec], declared: Sequence[str]) -> dict[str, str]:
    """The model's own names to the declared ones."""
    own = [spec.name for spec in specs]
    if not declared or set(declared) <= set(own):
        return {name: name for name in own}
    if len(own) != len(declared):
        raise EngineError(
            f"the model's {what} are {', '.join(own)}; declared are {', '.join(declared)}"
        )
    return dict(zip(own, declared, strict=True))


class _Renamed:
    """Satisfies `edgectl.engine.session.Session`."""

    def __init__(self, session: Session, takes: dict[str, str], gives: dict[str, str]) -> None:
        self._session = session
        self._takes, self._gives = takes, gives
        self.engine, self.providers = session.engine, session.providers
        self.inputs = tuple(_renamed(spec, takes) for spec in session.inputs)
        self.outputs = tuple(_renamed(spec, gives) for spec in session.outputs)

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Infer; see `Session.run`."""
        own = {name: inputs[declared] for name, declared in self._takes.items()}
        return {self._gives[name]: values for name, values in self._session.run(own).items()}

    def close(self) -> None:
        """See `Session.close`."""
        self._session.close()


def _renamed(spec: TensorSpec, names: Mapping[str, str]) -> TensorSpec:
    return dataclasses.replace(spec, name=names[spec.name])
