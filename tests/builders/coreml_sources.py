"""Makes the models that test_coreml.py builds from; run by the Python of the coreml toolchain.

`python coreml_sources.py sources DIRECTORY` makes PyTorch programs; `python coreml_sources.py
faults PACKAGE DIRECTORY` makes broken copies of a package.
"""

from __future__ import annotations

import json
import pickle
import shutil
import sys
from pathlib import Path
from typing import Any

import torch
from torch import nn


class Net(nn.Module):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU6()
        )
        self.hidden, self.out = nn.Linear(32, 64), nn.Linear(64, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.features(x).mean((2, 3))
        return torch.softmax(self.out(torch.relu(self.hidden(x))), -1)


class Lookup(nn.Module):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(50, 16)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.table(ids).mean(1)


class Decomposed(nn.Module):  # type: ignore[misc]
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.linalg.svd(x)[1]


def sources(directory: Path) -> None:
    def export(name: str, model: nn.Module, example: Any, **options: Any) -> None:
        program = torch.export.export(model.eval(), (example,), **options)
        torch.export.save(program, directory / name)

    torch.manual_seed(0)
    net, image = Net().eval(), torch.randn(2, 3, 8, 8)
    export("fixed.pt2", net, image[:1])
    batch = torch.export.Dim("batch", min=1, max=16)
    export("free.pt2", net, image, dynamic_shapes=({0: batch},))
    torch.jit.save(torch.jit.trace(net, image[:1]), directory / "traced.pt")
    torch.jit.save(torch.jit.script(net), directory / "scripted.pt")
    export("ids.pt2", Lookup(), torch.zeros(1, 12, dtype=torch.int64))
    export("svd.pt2", Decomposed(), torch.randn(1, 4, 4))
    export("small.pt2", nn.Linear(4, 3), torch.randn(1, 4))
    for name, value in (("nan", float("nan")), ("large", 1e5)):
        broken = Net()
        with torch.no_grad():
            broken.out.weight[0, 0] = value
        export(f"{name}.pt2", broken, image[:1])
    (directory / "pickle.pt").write_bytes(pickle.dumps({"weights": [1.0]}))
    (directory / "cut.pt2").write_bytes((directory / "fixed.pt2").read_bytes()[:5000])


def faults(package: Path, directory: Path) -> None:
    from coremltools.proto import Model_pb2

    def copy(name: str) -> tuple[Path, Any]:
        target = directory / name
        shutil.copytree(package, target)
        model = Model_pb2.Model()
        model.ParseFromString((target / INSIDE).read_bytes())
        return target, model

    def blobs(model: Any) -> list[Any]:
        block = model.mlProgram.functions["main"].block_specializations
        values = [
            operation.attributes["val"]
            for each in block.values()
            for operation in each.operations
            if "val" in operation.attributes
        ]
        return [value for value in values if value.WhichOneof("value") == "blobFileValue"]

    def save(target: Path, model: Any) -> None:
        (target / INSIDE).write_bytes(model.SerializeToString())

    target, model = copy("offset.mlpackage")
    blobs(model)[0].blobFileValue.offset = 1 << 40
    save(target, model)
    target, model = copy("elsewhere.mlpackage")
    blobs(model)[0].blobFileValue.fileName = "@model_path/../../../../../etc/passwd"
    save(target, model)
    target, model = copy("shape.mlpackage")
    blobs(model)[0].type.tensorType.dimensions[0].constant.size += 1
    save(target, model)
    target, _ = copy("cut.mlpackage")
    weights = target / INSIDE.parent / "weights/weight.bin"
    weights.write_bytes(weights.read_bytes()[:-64])
    target, _ = copy("escapes.mlpackage")
    manifest = json.loads((target / "Manifest.json").read_text())
    next(iter(manifest["itemInfoEntries"].values()))["path"] = "../../secret"
    (target / "Manifest.json").write_text(json.dumps(manifest))
    target, _ = copy("link.mlpackage")
    (target / INSIDE.parent / "weights/more.bin").symlink_to("/etc/passwd")
    target, _ = copy("nested.mlpackage")
    (target / "Manifest.json").write_text("[" * 100_000)
    target, _ = copy("garbage.mlpackage")
    (target / INSIDE).write_bytes(b"\x0a\xff\xff\xff\xff\x0f")
    (directory / "empty.mlmodel").write_bytes(b"")
    (directory / "compiled.mlmodelc").mkdir()
    (directory / "compiled.mlmodelc/coremldata.bin").write_bytes(b"\0")
    _networks(directory)


def _networks(directory: Path) -> None:
    from coremltools.models import datatypes
    from coremltools.models.neural_network import NeuralNetworkBuilder

    def builder() -> NeuralNetworkBuilder:
        made = NeuralNetworkBuilder(
            [("x", datatypes.Array(4))],
            [("y", datatypes.Array(4))],
            disable_rank5_shape_mapping=True,
        )
        made.add_activation("act", "RELU", "x", "y")
        return made

    plain = builder().spec
    (directory / "network.mlmodel").write_bytes(plain.SerializeToString())
    layer = plain.neuralNetwork.layers[0]
    layer.ClearField("activation")
    layer.custom.className = "AppLayer"
    (directory / "custom.mlmodel").write_bytes(plain.SerializeToString())


INSIDE = Path("Data/com.apple.CoreML/model.mlmodel")

if __name__ == "__main__":
    if sys.argv[1] == "sources":
        sources(Path(sys.argv[2]))
    else:
        faults(Path(sys.argv[2]), Path(sys.argv[3]))
