"""Which builders take a model to a target, and what is said where none does."""

from __future__ import annotations

from dataclasses import replace

import pytest

from edgectl.desired import DesiredVariant
from edgectl.errors import ManifestError
from edgectl.plan.backends import reference, route, taking_part, used
from tests.support.desired import Toolchain, digest, model, target


def builder(name: str, **parts: tuple[str, ...] | str) -> Toolchain:
    return replace(Toolchain(name, digest(name)), **parts)  # type: ignore[arg-type]


ONNX = builder("onnx", formats=("onnx",), engines=("onnxruntime",))
CAFFE = builder("caffe", formats=("caffe",))
LITERT = builder("litert", engines=("litert",), takes=("tflite",))
TFLM = builder("tflm", engines=("tflm",), compiles="litert")
NPU = builder("npu", engines=("openvino",), takes=("blob",))
ALL = (CAFFE, LITERT, NPU, ONNX, TFLM)


@pytest.mark.parametrize(
    ("source_format", "engine", "importer", "maker", "compiler"),
    [
        ("onnx", "onnxruntime", ONNX, ONNX, None),
        ("caffe", "onnxruntime", CAFFE, ONNX, None),
        ("caffe", "tflm", CAFFE, LITERT, TFLM),
        ("tflite", "litert", None, LITERT, None),
        ("tflite", "tflm", None, LITERT, TFLM),
        ("blob", "openvino", None, NPU, None),
    ],
)
def test_the_way_of_a_format_to_an_engine(
    source_format: str,
    engine: str,
    importer: Toolchain | None,
    maker: Toolchain,
    compiler: Toolchain | None,
) -> None:
    found = route(ALL, model(source_format=source_format), target(engine=engine))
    assert (found.importer, found.maker, found.compiler) == (importer, maker, compiler)
    assert found.evaluator == (compiler or maker)


def test_the_builders_of_a_plan_are_those_of_all_that_can_be_made() -> None:
    boards = model(variants=(DesiredVariant(target(engine="tflm"), "int8"),))
    nowhere = model(variants=(DesiredVariant(target(engine="npu9"), "int8"),))
    alone = replace(boards, source_format="tflite", evaluation=None)
    assert taking_part(ALL, [alone, nowhere]) == {"litert", "tflm"}
    assert taking_part(ALL, [boards]) == {"onnx", "litert", "tflm"}
    assert taking_part(ALL, []) == frozenset()


def test_a_builder_of_the_project_comes_before_ours() -> None:
    mine = builder("mine", formats=("onnx",))
    assert route((mine, *ALL), model(), target()).importer == mine


def test_a_model_is_held_against_itself_where_an_engine_runs_it_as_it_came() -> None:
    assert reference(ALL, model(source_format="tflite")) == (None, LITERT)
    assert reference(ALL, model(source_format="caffe")) == (CAFFE, ONNX)
    assert used(ALL, model(source_format="caffe")) == [CAFFE, ONNX]


def test_a_format_that_nothing_reads_is_refused_with_the_ones_that_are_meant() -> None:
    with pytest.raises(ManifestError, match=r"0: no builder reads .* 'cafe'") as caught:
        route(ALL, model(source_format="cafe"), target())
    assert "did you mean 'caffe'?" in (caught.value.hint or "")


def test_a_format_of_one_engine_alone_is_refused_elsewhere() -> None:
    with pytest.raises(ManifestError, match="runs on litert alone and is not translated") as caught:
        route(ALL, model(source_format="tflite"), target())
    assert "litert" in (caught.value.hint or "")


def test_a_format_that_nothing_runs_as_it_came_has_nothing_to_be_measured_against() -> None:
    with pytest.raises(ManifestError, match="nothing to measure its variants against") as caught:
        reference(ALL, model(source_format="blob"))
    assert "spec.evaluation" in (caught.value.hint or "")


def test_an_engine_that_nothing_makes_models_for_is_refused() -> None:
    with pytest.raises(ManifestError, match="no builder makes models for the engine 'coreml'"):
        route(ALL, model(), target(engine="coreml"))
