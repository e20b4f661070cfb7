"""ResNet-50 and MobileNetV2 in int8 against fp32, on ONNX Runtime and OpenVINO.

The networks have random weights (`tests.bench._cnn`), which does not change what a multiplication
takes. All variants are made by edgectl's builders, calibrated on noise, and run in turns, each in
its own process, on one thread, one picture of 224x224 at a time.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx

import edgectl
from edgectl.build.builder import find_builder
from edgectl.build.runner import Request, run
from edgectl.build.toolchain import prepare
from edgectl.engine.host import describe_host
from edgectl.quantity import format_bytes, format_seconds
from tests.bench._cnn import CLASSES, NAMES, SIZE
from tests.bench._peak import Peak, multiply_adds, peak
from tests.bench._quiet import Clock
from tests.bench._race import Contender, Timing, race, ratio
from tests.bench._variants import cpu_features, model_of
from tests.support.project import REPOSITORY

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import NDArray

PLAIN = "ONNX Runtime fp32, as it comes"
_ROWS = 8
_INPUTS = ({"name": "pixels", "datatype": "FP32", "shape": [-1, 3, SIZE, SIZE]},)
_OUTPUTS = ({"name": "logits", "datatype": "FP32", "shape": [-1, CLASSES]},)
_NARROW = {"activations": "int8", "weights": "int8", "perChannel": False}
"""What ONNX Runtime's quantize_static does unless it is told otherwise."""
_LEAST_RUNS = 15


@dataclass(frozen=True, slots=True)
class _Wanted:
    """A variant to make."""

    title: str
    builder: str
    engine: str
    precision: str
    quantization: Mapping[str, Any]


_WANTED = (
    _Wanted("edgectl, onnxruntime int8", "onnx", "onnxruntime", "int8", {}),
    _Wanted("the same with s8 activations, per tensor", "onnx", "onnxruntime", "int8", _NARROW),
    _Wanted("edgectl, openvino fp32", "openvino", "openvino", "fp32", {}),
    _Wanted("edgectl, openvino bf16", "openvino", "openvino", "bf16", {}),
    _Wanted("edgectl, openvino int8", "openvino", "openvino", "int8", {}),
)


def main() -> None:
    """Print a table for each network."""
    print(f"{describe_host()['cpu']}, one thread, batch 1\n")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _networks(folder)
        noise = np.random.default_rng(0).normal(size=(_ROWS, 3, SIZE, SIZE)).astype(np.float32)
        np.savez(folder / "noise.npz", pixels=noise)
        made = {network: list(_contenders(network, folder)) for network in NAMES}
        started = Clock.now()
        ceiling = peak(folder)
        if ceiling is not None:
            print(
                f"One core multiplies and adds {ceiling.fp32 / 1e9:.0f} billion times a second in "
                f"fp32 and {ceiling.int8 / 1e9:.0f} billion in int8 at most: "
                f"{ceiling.int8 / ceiling.fp32:.1f} times as often.\n"
            )
        for network, contenders in made.items():
            timings, failed = race(contenders, least=_LEAST_RUNS, answers=True)
            for title, reason in failed.items():
                print(f"{title} did not run: {reason}\n")
            work = multiply_adds(onnx.load_model(folder / network / "fp32" / "model.onnx"))
            print("\n".join(table(network, timings, work, ceiling)), end="\n\n", flush=True)
    print(started.since())


def table(
    network: str, timings: Sequence[Timing], work: int, ceiling: Peak | None
) -> Iterable[str]:
    """A Markdown table; `work` is the multiply-adds of one run."""
    plain = next(each for each in timings if each.contender.title == PLAIN)
    yield (
        f"| {network}, {work / 1e9:.2f} billion multiply-adds | size | p50 | p99 | CPU | "
        "peak memory | speed / ONNX Runtime fp32 | of the core's peak | cosine |"
    )
    yield "|---|---:|---:|---:|---:|---:|---:|---:|---:|"
    for each in timings:
        cells = [
            each.contender.title,
            format_bytes(_size(Path(each.contender.model))),
            format_seconds(each.seconds(50)),
            format_seconds(each.seconds(99)),
            format_seconds(each.cpu_seconds),
            format_bytes(each.peak),
            f"{ratio(plain, each):.2f}",
            share(work, each, ceiling),
            f"{_cosine(plain, each):.3f}",
        ]
        yield f"| {' | '.join(cells)} |"


def share(work: int, timing: Timing, ceiling: Peak | None) -> str:
    """How much of what one core can do at most was done; nothing for bf16, which has its own."""
    title = timing.contender.title
    if ceiling is None or "bf16" in title:
        return ""
    most = ceiling.fp32 if "fp32" in title else ceiling.int8
    return f"{work / timing.cpu_seconds / most:.0%}"


def _networks(folder: Path) -> None:
    """Write them in the environment that has transformers."""
    library = folder / "lib"
    library.mkdir()
    (library / "edgectl").symlink_to(Path(edgectl.__file__).parent)
    (library / "tests").symlink_to(REPOSITORY / "tests")
    python = prepare(find_builder("huggingface"))
    subprocess.run(
        [python, "-P", "-m", "tests.bench._cnn", str(folder / "sources")],
        check=True,
        capture_output=True,
        env={"PATH": os.defpath, "HOME": str(folder), "PYTHONPATH": str(library),
             "HF_HUB_OFFLINE": "1", "PYTHONDONTWRITEBYTECODE": "1"},
    )  # fmt: skip


def _contenders(network: str, folder: Path) -> Iterable[Contender]:
    source, data, here = folder / "sources" / network, folder / "noise.npz", folder / network
    contender = partial(Contender, data=str(data), inputs=_INPUTS, outputs=_OUTPUTS)
    imported = _run("huggingface", "import", network, {"source": source}, data, here / "fp32")
    yield contender("transformers fp32", "huggingface", str(source), form="huggingface")
    yield contender(PLAIN, "onnx", str(imported))
    yield contender(
        "edgectl, onnxruntime fp32",
        "onnx",
        str(imported),
        engine="onnxruntime",
    )
    for number, wanted in enumerate(_WANTED):
        made = _run(
            wanted.builder,
            "optimize",
            network,
            {"model": imported},
            data,
            here / str(number),
            engine=wanted.engine,
            precision=wanted.precision,
            method="minmax",
            cpuFeatures=list(cpu_features()),
            **wanted.quantization,
        )
        yield contender(wanted.title, wanted.builder, str(made), engine=wanted.engine)


def _run(
    builder: str,
    action: str,
    model: str,
    inputs: Mapping[str, Path],
    data: Path,
    output: Path,
    **params: Any,
) -> Path:
    params |= {"inputs": list(_INPUTS), "outputs": list(_OUTPUTS)}
    request = Request(action, model, {**inputs, "calibration": data}, params, output)
    return model_of(run(find_builder(builder), request))


def _size(path: Path) -> int:
    files = path.rglob("model.*") if path.is_dir() else [path]
    return sum(each.stat().st_size for each in files)


def _cosine(base: Timing, timing: Timing) -> float:
    """Mean cosine similarity of the logits to those of plain ONNX Runtime."""
    a, b = _logits(base), _logits(timing)
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return float(np.mean((a * b).sum(axis=1) / lengths))


def _logits(timing: Timing) -> NDArray[np.float64]:
    assert timing.outputs is not None
    return timing.outputs["logits"].astype(np.float64)


if __name__ == "__main__":
    main()
