"""A model in a layout and a key pair, for the verbs sign and verify."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgectl.oci.layout import LayoutStore
from edgectl.trust.keyfile import write_key_pair
from edgectl.trust.keys import generate
from tests.unit.trust.artifacts import TAG, push_model

if TYPE_CHECKING:
    from pathlib import Path

    from edgectl.oci.descriptor import Descriptor


@dataclass(frozen=True)
class Signed:
    """Everything lies below one directory."""

    path: Path
    index: Descriptor

    @property
    def ref(self) -> str:
        return f"oci-layout:{self.path}/models/digits:{TAG}"

    @property
    def key(self) -> Path:
        return self.path / "cosign.key"

    @property
    def pub(self) -> Path:
        return self.path / "cosign.pub"


def make(path: Path) -> Signed:
    index = push_model(LayoutStore(path).repository("models/digits"))
    write_key_pair(path / "cosign", generate(), b"pw")
    return Signed(path, index)
