"""The page of transforms has them all, with every parameter, and examples that work."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from edgectl.engine import transforms
from edgectl.engine.signature import TensorSpec
from edgectl.engine.transforms.registry import POST, PRE, name_of

PAGE = (Path(__file__).parents[4] / "docs" / "transforms.md").read_text(encoding="utf-8")
SECTIONS = dict(re.findall(r"^### (\w+)\n(.*?)(?=^##|\Z)", PAGE, re.MULTILINE | re.DOTALL))
EXAMPLES = [yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)]
STEPS = [step for block in EXAMPLES if isinstance(block, list) for step in block]


def test_every_transform_has_a_section_and_an_example() -> None:
    assert {*PRE, *POST} <= set(SECTIONS)
    assert {*PRE, *POST} == {name_of(step) for step in STEPS}


@pytest.mark.parametrize("name", [*PRE, *POST])
def test_every_parameter_is_explained_with_its_default(name: str) -> None:
    kind: Any = {**PRE, **POST}[name]
    for field in dataclasses.fields(kind):
        first, *rest = field.name.split("_")
        spelled = first + "".join(word.capitalize() for word in rest)
        assert f"`{spelled}" in SECTIONS[name], f"{name}: {spelled}"
        for line in re.findall(rf"^\| `{spelled}` \| (\S+) \|", SECTIONS[name], re.MULTILINE):
            stated = yaml.safe_load(line.strip("`"))
            if field.default not in (dataclasses.MISSING, None, ""):
                assert stated == field.default, f"{name}: {spelled}"


@pytest.mark.parametrize("step", STEPS, ids=str)
def test_examples_are_read(step: Any) -> None:
    full = transforms.canonical(step)
    assert transforms.canonical(full) == full


def test_the_example_of_two_outputs_fits_together() -> None:
    [example] = [block for block in EXAMPLES if isinstance(block, dict)]
    outputs = [
        TensorSpec(
            each["name"], each["datatype"], tuple(each["shape"]),
            tuple(map(transforms.canonical, each["postprocess"])), tuple(each.get("labels", ())),
        )
        for each in example["outputs"]
    ]  # fmt: skip
    for spec in outputs:
        transforms.check(spec, "output")
    transforms.check_together((), outputs)
    assert transforms.detector(outputs) is not None
