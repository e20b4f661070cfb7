"""The inference server against its own engine: what HTTP adds to calling it in process."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from edgectl.digest import canonical_json
from edgectl.engine.modeldir import ModelDirectory
from edgectl.engine.signature import ModelSignature, TensorSpec
from edgectl.quantity import format_bytes, format_seconds
from tests.support.server import Server, running
from tests.support.slots import make_digits

_SMALL = (1, 1, 8, 8)
_LARGE = (1, 3, 224, 224)
_REQUESTS = 3000
_CONNECTIONS = (1, 8, 32)


def main() -> None:
    """Print the tables of docs/benchmarks.md."""
    with tempfile.TemporaryDirectory() as folder:
        small = make_digits(Path(folder) / "digits")
        large = _make_pooling(Path(folder) / "pooling")
        print(
            "| infer over one connection | p50 | p99 | engine in process p50 | p99 | added at p50 |"
        )
        print("|---|---|---|---|---|---|")
        resident = _row("small tensor (256 B, the digits CNN)", small, _SMALL, "binary")
        _row("small tensor, JSON", small, _SMALL, "json")
        _row("600 KB binary tensor (mean of each channel)", large, _LARGE, "binary")
        print("\n| connections | requests/s | p50 | p99 |\n|---|---|---|---|")
        with running("--model", str(small)) as server:
            server.wait_ready()
            for connections in _CONNECTIONS:
                result = _load(server, "digits", "image", _SMALL, "binary", connections)
                times = f"{format_seconds(result['p50'])} | {format_seconds(result['p99'])}"
                print(f"| {connections} | {result['rate']:.0f} | {times} |")
        print(f"\nResident memory of `edgectl serve` with the digits model: {resident}")


def _row(title: str, model: Path, shape: tuple[int, ...], form: str) -> str:
    """Measure one model over HTTP and in process; returns the server's resident memory."""
    name = ModelDirectory.open(model).signature.name
    with running("--model", str(model)) as server:
        server.wait_ready()
        result = _load(server, name, "image", shape, form, 1)
        resident = format_bytes(server.resident_bytes())
    median, high = _in_process(model, shape)
    figures = [result["p50"], result["p99"], median, high, result["p50"] - median]
    print(f"| {title} | {' | '.join(format_seconds(figure) for figure in figures)} |")
    return resident


def _load(
    server: Server, model: str, tensor: str, shape: tuple[int, ...], form: str, connections: int
) -> dict[str, float]:
    host, port = server.address.split(":")
    array = np.full(shape, 0.5, np.float32)
    description: dict[str, Any] = {"name": tensor, "shape": list(shape), "datatype": "FP32"}
    headers: dict[str, str] = {}
    if form == "binary":
        description["parameters"] = {"binary_data_size": array.nbytes}
        request = {"inputs": [description], "parameters": {"binary_data_output": True}}
        head = json.dumps(request).encode()
        headers["inference-header-content-length"] = str(len(head))
        body = head + array.tobytes()
    else:
        description["data"] = array.ravel().tolist()
        body = json.dumps({"inputs": [description]}).encode()
    order = {
        "host": host,
        "port": int(port),
        "path": f"/v2/models/{model}/infer",
        "headers": headers,
        "body": body.hex(),
        "connections": connections,
        "requests": _REQUESTS,
    }
    done = subprocess.run(
        [sys.executable, "-m", "tests.bench._load"],
        input=json.dumps(order),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return dict(json.loads(done.stdout))


def _in_process(model: Path, shape: tuple[int, ...]) -> tuple[float, float]:
    session = ModelDirectory.open(model).load()
    inputs = {"image": np.full(shape, 0.5, np.float32)}
    seconds = []
    for _ in range(_REQUESTS):
        started = time.perf_counter()
        session.run(inputs)
        seconds.append(time.perf_counter() - started)
    session.close()
    seconds.sort()
    return seconds[len(seconds) // 2], seconds[len(seconds) * 99 // 100]


def _make_pooling(directory: Path) -> Path:
    """A model that reads a whole 600 KB tensor and does hardly anything else with it."""
    directory.mkdir()
    free = ("batch", 3, 224, 224)
    graph = helper.make_graph(
        [helper.make_node("GlobalAveragePool", ["image"], ["mean"])],
        "pooling",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, free)],
        [helper.make_tensor_value_info("mean", TensorProto.FLOAT, ("batch", 3, 1, 1))],
    )
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), directory / "model.onnx")
    signature = ModelSignature(
        "pooling",
        "1.0.0",
        "other",
        (TensorSpec("image", "FP32", (-1, 3, 224, 224)),),
        (TensorSpec("mean", "FP32", (-1, 3, 1, 1)),),
        {"name": "onnxruntime"},
    )
    (directory / "signature.json").write_bytes(canonical_json(signature.to_json()))
    return directory


if __name__ == "__main__":
    main()
