"""The build recipe: one form, read back as it was written, and nothing else taken for one."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgectl.engine.errors import EngineError
from edgectl.engine.recipe import (
    COMPATIBILITIES,
    Batch,
    Dla,
    Pins,
    Recipe,
    read_recipe,
    version_numbers,
)

if TYPE_CHECKING:
    from pathlib import Path

sizes = st.lists(st.integers(1, 64), min_size=3, max_size=3).map(sorted)
recipes = st.builds(
    Recipe,
    precision=st.sampled_from(["fp32", "fp16", "bf16", "int8"]),
    strongly_typed=st.booleans(),
    batch=st.none() | sizes.map(lambda three: Batch(*three)),
    workspace=st.none() | st.integers(1, 1 << 40),
    dla=st.none() | st.builds(Dla, st.integers(0, 1), st.booleans()),
    timing_cache=st.booleans(),
    optimization_level=st.integers(0, 5),
    minimum_version=st.sampled_from(["10.0", "10.3", "11.4.0.106"]),
    hardware_compatibility=st.sampled_from(COMPATIBILITIES),
    pins=st.none() | st.just(Pins("10.3.0", "8.7")),
)


@given(recipes)
def test_what_is_written_is_read_back_and_written_the_same(recipe: Recipe) -> None:
    assert Recipe.from_bytes(recipe.to_bytes()) == recipe
    assert Recipe.from_bytes(recipe.to_bytes()).to_bytes() == recipe.to_bytes()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"schemaVersion": 2}, "schemaVersion 2 is not 1"),
        ({"batch": {"min": 4, "opt": 1, "max": 8}}, "1 <= min <= opt <= max"),
        ({"optimizationLevel": 6}, "0 to 5"),
        ({"workspace": -1}, "number of bytes"),
        ({"hardwareCompatibility": "all"}, "not one of none"),
        ({"minVersion": "new"}, "not a version"),
        ({"dla": {"core": -1, "gpuFallback": True}}, "does not exist"),
        ({"pins": {"tensorrt": "10.3", "computeCapability": "sm_87"}}, "no versions"),
        ({"pins": {}}, "malformed"),
    ],
)
def test_another_value_is_refused(tmp_path: Path, change: dict[str, object], said: str) -> None:
    value = json.loads(Recipe("int8").to_bytes()) | change
    path = tmp_path / "recipe.json"
    path.write_text(json.dumps(value))
    with pytest.raises(EngineError, match="not a build recipe") as caught:
        read_recipe(path)
    assert said in str(caught.value)


@pytest.mark.parametrize("data", [b"", b"[]", b"null", b"{}", b"\xff", b"[" * 30_000])
def test_what_is_no_recipe_is_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "recipe.json").write_bytes(data)
    with pytest.raises(EngineError, match="recipe"):
        read_recipe(tmp_path / "recipe.json")


def test_a_missing_or_huge_recipe_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="cannot read"):
        read_recipe(tmp_path / "recipe.json")
    (tmp_path / "recipe.json").write_bytes(b" " * 100_000)
    with pytest.raises(EngineError, match="larger than"):
        read_recipe(tmp_path / "recipe.json")


def test_versions_compare_as_numbers() -> None:
    assert version_numbers("10.16.1") > version_numbers("10.3.0")
    with pytest.raises(ValueError, match="not a version"):
        version_numbers("dev")
