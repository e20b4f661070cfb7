"""Every importer, format by format, does what an importer must, on a model that was trained."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import onnx
import pytest
import yaml

from edgectl.build.builder import find_builders
from tests.support import conformance
from tests.support.builders import MANIFESTS
from tests.support.conformance import Chain

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.slow  # making the toolchains takes minutes, once
IMPORTERS = {name: each for each in find_builders() for name in each.formats}
MODELS = {
    yaml.safe_load(path.read_bytes())["spec"]["source"]["format"]: path.stem
    for path in sorted((MANIFESTS / "models").glob("*.yaml"), reverse=True)
}
"""A shipped model of each format."""
TARGET = "intel-nuc"


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Chain]:
    @cache
    def chain(source_format: str) -> Chain:
        name = MODELS[source_format]
        root = tmp_path_factory.mktemp("project")
        conformance.make_project(root, {name: [TARGET]})
        return Chain.of(root, name, TARGET, tmp_path_factory.mktemp(source_format))

    return chain


def test_each_format_has_a_model_that_its_importer_is_tried_on() -> None:
    assert set(IMPORTERS) <= set(MODELS)


@pytest.mark.parametrize("source_format", IMPORTERS)
def test_makes_onnx_that_agrees_with_its_source(
    chain: Callable[[str], Chain], source_format: str
) -> None:
    line = chain(source_format)
    step = line.steps[0]
    assert line.builder(step).name == IMPORTERS[source_format].name
    result = line.result(step)
    onnx.checker.check_model(onnx.load_model(conformance.made(result)), full_check=True)
    agreement = result.metadata["agreement"]
    assert agreement["data"] == "evaluation"
    assert agreement["samples"] >= 16
    assert agreement["maxDifference"] < 1
    conformance.check_progress(line.progress[step.key])


@pytest.mark.parametrize("source_format", IMPORTERS)
def test_makes_the_same_bytes_elsewhere(
    chain: Callable[[str], Chain], source_format: str, tmp_path: Path
) -> None:
    line = chain(source_format)
    step = line.steps[0]
    conformance.check_same_elsewhere(
        line.builder(step), line.request(step), line.result(step), tmp_path
    )


@pytest.mark.parametrize("source_format", IMPORTERS)
def test_a_cancelled_import_ends(
    chain: Callable[[str], Chain], source_format: str, scratch: Path
) -> None:
    line = chain(source_format)
    step = line.steps[0]
    conformance.check_cancelled(line.builder(step), line.request(step, "cancelled"), scratch)


@pytest.mark.parametrize("source_format", IMPORTERS)
def test_refuses_half_a_model(
    chain: Callable[[str], Chain], source_format: str, tmp_path: Path
) -> None:
    line = chain(source_format)
    request = line.request(line.steps[0], "half")
    half = conformance.truncated(request.inputs["source"], tmp_path)
    conformance.refusal(line.builder(line.steps[0]), request, inputs={"source": half})


@pytest.mark.parametrize("source_format", IMPORTERS)
def test_refuses_an_output_that_the_model_has_not(
    chain: Callable[[str], Chain], source_format: str
) -> None:
    line = chain(source_format)
    step = line.steps[0]
    declared, *rest = step.params["outputs"]
    other = declared | {"shape": [*declared["shape"][:-1], 7]}
    error = conformance.refusal(
        line.builder(step), line.request(step, "shape"), params={"outputs": [other, *rest]}
    )
    assert ", 7]" in error.message
