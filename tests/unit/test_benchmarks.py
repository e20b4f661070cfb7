"""What the benchmarks say of what they measured; they themselves are run by `make bench`."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from edgectl.engine.npz import read_npz
from tests.bench import _variants, int8, recipes
from tests.bench._peak import Peak, multiply_adds
from tests.bench._race import Contender, Timing, ratio
from tests.bench._sources import TOOLCHAINS, flat
from tests.bench._worker import run_for
from tests.support.project import REPOSITORY

if TYPE_CHECKING:
    from pathlib import Path

    from edgectl.desired import Desired

MODULES = sorted(path.stem for path in (REPOSITORY / "tests" / "bench").glob("[!_]*.py"))


@pytest.fixture(scope="module")
def desired(tmp_path_factory: pytest.TempPathFactory) -> Desired:
    return _variants.plan(tmp_path_factory.mktemp("bench"))


def timing(*cpu: int, title: str = "it", **more: object) -> Timing:
    contender = Contender(title, "onnx", str(more.get("model", "")), str(more.get("data", "")))
    outputs = {"logits": more["logits"]} if "logits" in more else None
    return Timing(contender, "engine 1.0", 1 << 20, cpu, cpu, outputs)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", MODULES)
def test_every_benchmark_has_a_main(name: str) -> None:
    assert callable(importlib.import_module(f"tests.bench.{name}").main)


def test_a_slow_moment_of_the_machine_does_not_change_the_ratio() -> None:
    """In the second round everything took ten times as long."""
    base, other = timing(400, 4000, 401), timing(100, 1000, 100)
    assert ratio(base, other) == 4.0
    assert ratio(other, base) == 0.25


def test_runs_are_as_many_as_asked_for_though_the_time_is_over() -> None:
    calls: list[int] = []
    taken, cpu = run_for(lambda: calls.append(1), 0.0, 7, 9)
    assert len(taken) == 7
    assert len(calls) == 9  # two are not counted
    assert cpu >= 0
    assert len(run_for(lambda: None, 60.0, 1, 9)[0]) == 9


def test_every_recipe_is_planned_for_every_engine(desired: Desired) -> None:
    names = {path.stem for path in (REPOSITORY / "manifests" / "models").glob("*.yaml")}
    assert {model.name for model in desired.models} == names
    variants = {
        (variant.target.engine, variant.target.name.rpartition("-")[2])
        for model in desired.models
        for variant in model.variants
    }
    assert variants == {(e, p) for e, several in _variants.ENGINES.items() for p in several}
    assert {model.source_format for model in desired.models} <= {*TOOLCHAINS, "coreml"}


def test_a_table_has_the_metric_the_sizes_and_what_the_gates_refuse(
    desired: Desired, tmp_path: Path
) -> None:
    model = next(each for each in desired.models if each.name == "digits")
    assert model.evaluation is not None
    assert model.evaluation.path is not None
    labels = read_npz(model.evaluation.path)["label"]
    right = np.eye(10, dtype=np.float32)[labels]
    file = tmp_path / "model.onnx"
    file.write_bytes(bytes(2048))
    shared = {"model": file, "data": model.evaluation.path}
    timings = [
        timing(2000, 2000, title=recipes.SOURCE, logits=right, **shared),
        timing(1000, 1000, title="onnxruntime int8", logits=right[::-1], **shared),
    ]
    head, _, source, variant = recipes.table(model, timings)
    assert head.startswith("| digits, 360 rows | accuracy | size | p50 ")
    assert "| 1 | 2.0 KiB | 2 µs | 2 µs | 2 µs | 1.0 MiB | 1.00 | 1.00 |" in source
    assert variant.startswith("| edgectl, onnxruntime int8 | 0.")
    assert f"{recipes.REFUSED} | 2.0 KiB | 1 µs" in variant
    assert variant.endswith("| 2.00 | 2.00 |")


def test_the_sources_of_a_board_project_do_not_count_as_model(tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "main.cc").write_bytes(bytes(100))
    (tmp_path / "model.tflite").write_bytes(bytes(10))
    assert recipes.size_of(tmp_path) == 10
    assert recipes.size_of(tmp_path / "src") == 100


def test_one_reason_is_one_line() -> None:
    refused = "model 'a:1': builder 'b' refuses to optimize it: no operator X"
    apart = "a is a coreml file; target {} has {}"
    several = {"litert": apart.format("t", "litert"), "tflm": apart.format("u", "tflm")}
    assert recipes.reasons({"a": several, "b": {"openvino": refused}}) == [
        "`a` on litert, tflm: a is a coreml file",
        "`b` on openvino: no operator X",
    ]


def test_tensors_are_found_in_any_nesting() -> None:
    assert list(flat({"a": 1, "b": [2, (3,)]})) == [1, 2, 3]


def test_multiply_adds_of_a_convolution_and_a_product() -> None:
    constants = {"k": (8, 1, 3, 3), "w": (8, 5)}
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["x", "k"], ["c"], group=4, pads=[1, 1, 1, 1]),
            helper.make_node("GlobalAveragePool", ["c"], ["p"]),
            helper.make_node("Flatten", ["p"], ["f"]),
            helper.make_node("MatMul", ["f", "w"], ["y"]),
        ],
        "small",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 4, 6, 6])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 5])],
        [
            onnx.numpy_helper.from_array(np.zeros(shape, np.float32), name)
            for name, shape in constants.items()
        ],
    )
    assert multiply_adds(helper.make_model(graph)) == 8 * 6 * 6 * 9 + 8 * 5


def test_the_share_of_the_peak_is_that_of_the_precision() -> None:
    ceiling, run = Peak(fp32=1e9, int8=4e9), 10**9
    assert int8.share(5 * 10**8, timing(run, title="fp32"), ceiling) == "50%"
    assert int8.share(10**9, timing(run, title="int8"), ceiling) == "25%"
    assert int8.share(10**9, timing(run, title="bf16"), ceiling) == ""
    assert int8.share(10**9, timing(run, title="int8"), None) == ""
