"""The adapter of TensorRT, on a stand-in for the library and the driver.

That every name it uses exists in the vendor's own package is tested in
tests/builders/test_tensorrt.py; that an engine is built and gives right answers can only be seen
on a GPU.
"""

from __future__ import annotations

import importlib
import json
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgectl.engine import cuda
from edgectl.engine.errors import (
    EngineError,
    EngineUnavailableError,
    InputError,
    UnsupportedError,
)
from edgectl.engine.options import EngineOptions
from edgectl.engine.recipe import Batch, Dla, Pins, Recipe
from edgectl.engine.session import load_session
from tests.support.tensorrt_stubs import FAKE, build_libcuda

if TYPE_CHECKING:
    from pathlib import Path
    from types import ModuleType

    from numpy.typing import NDArray

OURS = ("tensorrt", "edgectl.engine.tensorrt", "edgectl.engine.tensorrt_build")
RECIPE = Recipe("fp32", batch=Batch(1, 1, 4))
Adapter = Callable[[], Any]


@pytest.fixture(scope="session")
def libcuda(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_libcuda(tmp_path_factory.mktemp("libcuda"))


def forget() -> None:
    for name in OURS:
        sys.modules.pop(name, None)
    package = sys.modules["edgectl.engine"]
    for name in ("tensorrt", "tensorrt_build"):
        if hasattr(package, name):
            delattr(package, name)


@pytest.fixture
def adapter(libcuda: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Adapter]:
    """Imports the adapter anew, on the stand-ins, as the environment has them."""
    monkeypatch.syspath_prepend(str(FAKE))
    monkeypatch.setattr(cuda, "LIBRARY", str(libcuda))

    def load() -> ModuleType:
        forget()
        return importlib.import_module("edgectl.engine.tensorrt")

    yield load
    forget()


def make_model(directory: Path, recipe: Recipe = RECIPE, batch: int | None = None) -> Path:
    """y = x @ w of shape [batch, 3] to [batch, 2], with its recipe."""
    weight = np.array([[1, 0], [0, 1], [1, 1]], np.float32)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"], name="dense")],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [batch, 2])],
        [numpy_helper.from_array(weight, "w")],
    )
    directory.mkdir(parents=True, exist_ok=True)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, directory / "model.onnx")
    (directory / "recipe.json").write_bytes(recipe.to_bytes())
    return directory / "model.onnx"


def rows(count: int) -> NDArray[np.float32]:
    return np.arange(count * 3, dtype=np.float32).reshape(count, 3)


def expected(x: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.stack([x[:, 0] + x[:, 2], x[:, 1] + x[:, 2]], axis=1)


def built(cache: Path) -> dict[str, Any]:
    """What the stand-in was asked for when it built the one engine of a cache."""
    (plan,) = cache.glob("*.plan")
    data = plan.read_bytes()
    said: dict[str, Any] = json.loads(data[8 : 8 + int.from_bytes(data[4:8], "big")])
    return said


def test_builds_once_and_runs(adapter: Adapter, tmp_path: Path) -> None:
    model, options = make_model(tmp_path / "m"), EngineOptions(cache=tmp_path / "cache")
    trt = adapter()
    told: list[tuple[float, str]] = []

    def report(progress: float, message: str) -> bool:
        told.append((progress, message))
        return True

    assert trt.prepare(model, options=options, report=report)
    assert not trt.prepare(model, options=options, report=report)
    fractions = [progress for progress, _ in told]
    assert fractions == sorted(fractions)
    assert fractions[0] == 0
    assert fractions[-1] == 1
    session = load_session(model, engine="tensorrt", options=options)
    assert session.engine == "tensorrt 10.3.0"
    assert session.providers == ("gpu",)
    assert [(s.name, s.datatype, s.shape) for s in session.inputs] == [("x", "FP32", (-1, 3))]
    assert [s.name for s in session.outputs] == ["y"]
    np.testing.assert_array_equal(session.run({"x": rows(2)})["y"], expected(rows(2)))
    session.close()
    session.close()
    with pytest.raises(EngineError, match="closed"):
        session.run({"x": rows(1)})


def test_a_batch_over_the_largest_runs_in_parts(adapter: Adapter, tmp_path: Path) -> None:
    session = adapter().load(make_model(tmp_path / "m"), options=EngineOptions(), threads=1)
    for count in (1, 4, 5, 11):
        np.testing.assert_array_equal(session.run({"x": rows(count)})["y"], expected(rows(count)))
    session.close()


def test_several_threads_share_a_session(adapter: Adapter, tmp_path: Path) -> None:
    session = adapter().load(make_model(tmp_path / "m"), options=EngineOptions(), threads=1)
    wrong: list[int] = []

    def ask(seed: int) -> None:
        for count in range(1, 20):
            x = rows(count) + seed
            if not np.array_equal(session.run({"x": x})["y"], expected(x)):
                wrong.append(count)

    threads = [threading.Thread(target=ask, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    session.close()
    assert not wrong


def test_a_fixed_batch_needs_no_profile(adapter: Adapter, tmp_path: Path) -> None:
    model = make_model(tmp_path / "m", replace(RECIPE, batch=None), batch=2)
    session = adapter().load(model, options=EngineOptions(), threads=1)
    np.testing.assert_array_equal(session.run({"x": rows(2)})["y"], expected(rows(2)))
    with pytest.raises(InputError, match="shape"):
        session.run({"x": rows(3)})
    session.close()


@pytest.mark.parametrize("version", ["10.3.0", "10.16.1.11", "11.4.0.106"])
def test_the_recipe_reaches_the_builder(
    adapter: Adapter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    monkeypatch.setenv("FAKE_TRT_VERSION", version)
    monkeypatch.setenv("FAKE_TRT_DLA", "2")
    recipe = replace(
        RECIPE, precision="fp16", strongly_typed=False, workspace=1 << 28,
        dla=Dla(1, gpu_fallback=True), optimization_level=5,
    )  # fmt: skip
    cache = tmp_path / "cache"
    trt = adapter()
    options = EngineOptions(cache=cache)
    trt.prepare(make_model(tmp_path / "m", recipe), options=options, report=lambda *_: True)
    said = built(cache)
    assert (said["dla"], said["device"], said["level"]) == (1, "DLA", 5)
    assert said["workspace"] == 1 << 28
    assert said["shapes"] == {"x": [[1, 3], [1, 3], [4, 3]]}
    assert ("FP16" in said["flags"]) == version.startswith("10")
    assert said["network"] == 0


def test_a_typed_network_is_asked_for_where_there_is_another(
    adapter: Adapter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for version, flags in (("10.3.0", 2), ("11.4.0.106", 0)):
        monkeypatch.setenv("FAKE_TRT_VERSION", version)
        cache = tmp_path / version
        options = EngineOptions(cache=cache)
        adapter().prepare(make_model(tmp_path / "m"), options=options, report=lambda *_: True)
        assert built(cache)["network"] == flags
        assert built(cache)["flags"] == []


def test_what_decides_an_engine_decides_its_name(
    adapter: Adapter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another model, recipe, TensorRT or GPU is another engine; the old one does not stay."""
    cache, options = tmp_path / "cache", EngineOptions(cache=tmp_path / "cache")

    def made(directory: str, recipe: Recipe = RECIPE, batch: int | None = None) -> str:
        model = make_model(tmp_path / directory, recipe, batch)
        assert adapter().prepare(model, options=options, report=lambda *_: True)
        (plan,) = cache.glob("*")
        return plan.name

    names = [
        made("a"),
        made("b", replace(RECIPE, workspace=1 << 20)),
        made("c", replace(RECIPE, batch=None), batch=1),
    ]
    monkeypatch.setenv("FAKE_CUDA_CAPABILITY", "72")
    names.append(made("a"))
    monkeypatch.setenv("FAKE_TRT_VERSION", "10.4.0")
    names.append(made("a"))
    assert len(set(names)) == len(names)


def test_a_damaged_engine_is_built_again(adapter: Adapter, tmp_path: Path) -> None:
    model, cache = make_model(tmp_path / "m"), tmp_path / "cache"
    trt, options = adapter(), EngineOptions(cache=cache)
    trt.prepare(model, options=options, report=lambda *_: True)
    (plan,) = cache.glob("*.plan")
    whole = plan.read_bytes()
    plan.write_bytes(b"ftrt garbage that is no engine")
    session = trt.load(model, options=options, threads=1)
    np.testing.assert_array_equal(session.run({"x": rows(1)})["y"], expected(rows(1)))
    session.close()
    assert plan.read_bytes() == whole


def test_measured_kernels_are_kept_for_the_next_build(
    adapter: Adapter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, timing = make_model(tmp_path / "m"), tmp_path / "timing"

    def timed(cache: str, **changed: Any) -> bool:
        (model.parent / "recipe.json").write_bytes(replace(RECIPE, **changed).to_bytes())
        options = EngineOptions(cache=tmp_path / cache, extra={"timingCache": timing})
        adapter().prepare(model, options=options, report=lambda *_: True)
        return bool(built(tmp_path / cache).get("timed"))

    assert [timed("1"), timed("2"), timed("3", timing_cache=False)] == [False, True, False]
    (file,) = timing.iterdir()
    file.write_bytes(b"measured on another GPU")
    assert not timed("4")
    assert timed("5")


def test_an_operator_that_tensorrt_lacks_is_named(
    adapter: Adapter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_TRT_REFUSES", "MatMul")
    with pytest.raises(UnsupportedError, match=r"operator MatMul \(node 'dense'\)") as caught:
        adapter().load(make_model(tmp_path / "m"), options=EngineOptions(), threads=1)
    assert (caught.value.operator, caught.value.node) == ("MatMul", "dense")


def test_what_tensorrt_says_is_in_the_error(adapter: Adapter, tmp_path: Path) -> None:
    model = make_model(tmp_path / "m", replace(RECIPE, batch=None))
    with pytest.raises(EngineError, match="but no profile"):
        adapter().load(model, options=EngineOptions(), threads=1)
    model.write_bytes(b"not a model")
    with pytest.raises(EngineError, match="not a protobuf"):
        adapter().load(model, options=EngineOptions(), threads=1)


def test_a_build_can_be_cancelled(adapter: Adapter, tmp_path: Path) -> None:
    options = EngineOptions(cache=tmp_path / "cache")
    with pytest.raises(EngineError, match="cancelled"):
        adapter().prepare(
            make_model(tmp_path / "m"), options=options, report=lambda done, _: done == 0
        )
    assert not list((tmp_path / "cache").glob("*"))


def test_hardware_that_is_not_here_is_no_fault_of_the_model(
    adapter: Adapter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dla = replace(RECIPE, dla=Dla(0, gpu_fallback=True))
    with pytest.raises(EngineUnavailableError, match=r"DLA core 0; .* finds 0"):
        adapter().load(make_model(tmp_path / "m", dla), options=EngineOptions(), threads=1)
    monkeypatch.setenv("FAKE_CUDA_DEVICES", "0")
    with pytest.raises(EngineUnavailableError, match="no NVIDIA GPU"):
        adapter().load(make_model(tmp_path / "m"), options=EngineOptions(), threads=1)
    monkeypatch.setenv("FAKE_CUDA_DEVICES", "-1")
    with pytest.raises(EngineUnavailableError, match=r"CUDA does not start here: .*\(100\)"):
        adapter().load(make_model(tmp_path / "m"), options=EngineOptions(), threads=1)
    monkeypatch.setattr(cuda, "LIBRARY", "libno-such-cuda.so.1")
    with pytest.raises(EngineUnavailableError, match="no usable NVIDIA driver"):
        adapter().load(make_model(tmp_path / "m"), options=EngineOptions(), threads=1)


def test_a_model_too_new_for_this_tensorrt(adapter: Adapter, tmp_path: Path) -> None:
    model = make_model(tmp_path / "m", replace(RECIPE, minimum_version="10.14"))
    with pytest.raises(UnsupportedError, match=r"from 10\.14 on; this machine has 10\.3\.0"):
        adapter().load(model, options=EngineOptions(), threads=1)
    model = make_model(tmp_path / "m", replace(RECIPE, hardware_compatibility=COMPATIBLE))
    with pytest.raises(UnsupportedError, match=COMPATIBLE):
        adapter().load(model, options=EngineOptions(), threads=1)


COMPATIBLE = "same-compute-capability"


def test_a_full_gpu_says_so(
    adapter: Adapter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = adapter().load(make_model(tmp_path / "m"), options=EngineOptions(), threads=1)
    monkeypatch.setenv("FAKE_CUDA_MEMORY", "0")
    with pytest.raises(EngineError, match="no memory left"):
        session.run({"x": rows(4)})
    session.close()


@pytest.fixture
def plan(adapter: Adapter, tmp_path: Path) -> Path:
    """A model directory with a ready engine, pinned to the stand-in."""
    cache = tmp_path / "cache"
    options = EngineOptions(cache=cache)
    adapter().prepare(make_model(tmp_path / "m"), options=options, report=lambda *_: True)
    (engine,) = cache.glob("*.plan")
    directory = tmp_path / "ready"
    directory.mkdir()
    recipe = replace(RECIPE, pins=Pins("10.3", "8.7"))
    (directory / "recipe.json").write_bytes(recipe.to_bytes())
    return engine.rename(directory / "model.plan")


def test_a_ready_engine_runs_where_it_was_made_for(adapter: Adapter, plan: Path) -> None:
    trt = adapter()
    assert not trt.prepare(plan, options=EngineOptions(), report=lambda *_: True)
    session = load_session(plan.parent, engine="tensorrt")
    np.testing.assert_array_equal(session.run({"x": rows(3)})["y"], expected(rows(3)))
    session.close()


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("FAKE_TRT_VERSION", "10.30.0", "made by TensorRT 10.3, this machine has 10.30.0"),
        ("FAKE_CUDA_CAPABILITY", "86", r"compute capability 8\.7, this one \(Fake Orin\) has 8\.6"),
    ],
)
def test_a_ready_engine_is_refused_elsewhere_unread(
    adapter: Adapter, plan: Path, monkeypatch: pytest.MonkeyPatch,
    variable: str, value: str, said: str,
) -> None:  # fmt: skip
    monkeypatch.setenv(variable, value)
    plan.unlink()  # it is refused before it is looked at
    with pytest.raises(UnsupportedError, match=said):
        adapter().load(plan, options=EngineOptions(), threads=1)


def test_what_is_no_engine_never_reaches_tensorrt(adapter: Adapter, plan: Path) -> None:
    plan.write_bytes(b"\x7fELF not an engine")
    with pytest.raises(EngineError, match="not a TensorRT engine"):
        adapter().load(plan, options=EngineOptions(), threads=1)
    (plan.parent / "recipe.json").write_bytes(RECIPE.to_bytes())
    with pytest.raises(EngineError, match="does not say what it runs on"):
        adapter().load(plan, options=EngineOptions(), threads=1)


def test_a_model_without_a_recipe_is_refused(adapter: Adapter, tmp_path: Path) -> None:
    model = make_model(tmp_path / "m")
    (model.parent / "recipe.json").unlink()
    with pytest.raises(EngineError, match="cannot read the build recipe"):
        adapter().load(model, options=EngineOptions(), threads=1)


def test_a_machine_without_tensorrt(tmp_path: Path) -> None:
    forget()
    with pytest.raises(EngineUnavailableError, match="tensorrt"):
        load_session(make_model(tmp_path / "m"), engine="tensorrt")
