"""What ONNX Runtime's providers and optimiser are told; the CUDA ones are not run here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnxruntime as ort
import pytest

from edgectl.engine.errors import EngineError
from edgectl.engine.onnxruntime import provider_options
from edgectl.engine.options import EngineOptions
from edgectl.engine.session import load_session

MODEL = Path(__file__).parents[3] / "manifests" / "models" / "digits-1.0.0.onnx"
TENSORRT, CUDA = "TensorrtExecutionProvider", "CUDAExecutionProvider"


def test_tensorrt_keeps_its_engines_in_the_cache() -> None:
    extra = {"workspace": 1 << 28, "precision": "int8"}
    told = provider_options(TENSORRT, EngineOptions(cache=Path("/cache"), extra=extra))
    assert told == {
        "trt_int8_enable": "1",
        "trt_max_workspace_size": str(1 << 28),
        "trt_engine_cache_enable": "1",
        "trt_engine_cache_path": "/cache",
        "trt_timing_cache_enable": "1",
        "trt_timing_cache_path": "/cache",
    }


def test_tensorrt_on_a_dla() -> None:
    told = provider_options(TENSORRT, EngineOptions(device="DLA:1", extra={"precision": "fp16"}))
    assert told == {"trt_fp16_enable": "1", "trt_dla_enable": "1", "trt_dla_core": "1"}


def test_cuda_takes_no_more_memory_than_it_needs() -> None:
    told = provider_options(CUDA, EngineOptions(extra={"gpuMemory": 1 << 30}))
    assert told == {"arena_extend_strategy": "kSameAsRequested", "gpu_mem_limit": str(1 << 30)}


def test_the_cpu_is_told_nothing() -> None:
    assert provider_options("CPUExecutionProvider", EngineOptions(cache=Path("/cache"))) == {}


@pytest.mark.parametrize(
    ("options", "level"),
    [
        ({"optimizations": "none"}, "ORT_DISABLE_ALL"),
        ({"optimizations": "basic"}, "ORT_ENABLE_BASIC"),
        ({"optimizations": "extended"}, "ORT_ENABLE_EXTENDED"),
        ({"optimizations": "all"}, "ORT_ENABLE_ALL"),
        ({}, "ORT_ENABLE_ALL"),
    ],
)
def test_optimisations_can_be_chosen(
    monkeypatch: pytest.MonkeyPatch, options: dict[str, str], level: str
) -> None:
    told = []

    class Listening(ort.InferenceSession):  # type: ignore[misc]  # onnxruntime has no types
        def __init__(self, path: str, options: ort.SessionOptions, **settings: Any) -> None:
            told.append(options.graph_optimization_level.name)
            super().__init__(path, options, **settings)

    monkeypatch.setattr(ort, "InferenceSession", Listening)
    load_session(MODEL, options=EngineOptions(extra=options)).close()
    assert told == [level]


def test_an_unknown_level_is_refused() -> None:
    with pytest.raises(EngineError, match="'most' is not one of: none, basic"):
        load_session(MODEL, options=EngineOptions(extra={"optimizations": "most"}))
