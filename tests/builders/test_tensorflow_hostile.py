"""TensorFlow models that are refused by their sizes, before anything of them is loaded."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from edgectl.errors import ModelError

if TYPE_CHECKING:
    from pathlib import Path

    from tests.builders.conftest import Build

pytestmark = pytest.mark.slow  # making the toolchains takes minutes, once


def test_three_gigabytes_of_variables_are_refused_unread(build: Build, tmp_path: Path) -> None:
    source = tmp_path / "saved"
    (source / "variables").mkdir(parents=True)
    (source / "saved_model.pb").write_bytes(b"never parsed")
    with (source / "variables" / "variables.data-00000-of-00001").open("wb") as file:
        file.truncate(3 << 30)  # a hole: it takes no space
    params = {
        "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 4]}],
        "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1, 4]}],
    }
    with pytest.raises(ModelError, match="the weights of saved are 3221225472 bytes") as caught:
        build("tensorflow", "import", {"source": source}, params)
    assert caught.value.hint
