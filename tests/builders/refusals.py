"""What a refused import has to look like, whichever builder refuses it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from edgectl.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from tests.builders.conftest import Build


def refused_import(
    build: Build, builder: str, source: Path, params: Mapping[str, Any]
) -> ModelError:
    """The one error of an import, which names its builder and says what to do."""
    with pytest.raises(ModelError) as caught:
        build(builder, "import", {"source": source}, params)
    assert f"builder {builder!r} refuses to import it" in caught.value.message
    assert caught.value.hint
    return caught.value
