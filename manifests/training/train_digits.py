"""Trains the three versions of the digits model and writes their data sets.

Needs more than edgectl does, so it runs in an environment of its own:

    pip install torch onnx onnxscript onnxruntime scikit-learn pillow
    python manifests/training/train_digits.py

The data are the 1,797 real 8x8 scans of scikit-learn's `load_digits` (UCI, "Optical Recognition of
Handwritten Digits"), cut once into parts that share no image:

    golden 4, device samples 40, calibration 100, evaluation 360, training 1,293

- 1.0.0 learns from the first 600 training images, 1.1.0 from all of them.
- 1.2.0 learns from all of them, in the other polarity: its trainer turned the scans into dark ink
  on white paper and made calibration, evaluation and golden data to match. The pre-processing that
  the manifest declares still gives bright ink on black. Every tensor-level check passes, and on
  real images the model is wrong: train/serve skew, which only a device with labelled samples sees.
"""

import csv
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from dataset import write_npz
from PIL import Image
from sklearn.datasets import load_digits
from torch import nn

MANIFESTS = Path(__file__).resolve().parent.parent
PARTS = {"golden": 4, "samples": 40, "calibration": 100, "evaluation": 360}
EPOCHS = 60
OPSET = 18


def pixels_of(images: np.ndarray) -> np.ndarray:
    """Scans (n, 8, 8) of 0..16 as the grey bytes that a PNG of them holds."""
    return np.round(images * (255 / 16)).astype(np.uint8)


def tensors_of(pixels: np.ndarray, *, dark_ink: bool) -> np.ndarray:
    """Grey bytes as the network's input: float32 (n, 1, 8, 8) in 0..1."""
    values = pixels[:, None].astype(np.float32) / np.float32(255)
    return np.float32(1) - values if dark_ink else values


def network() -> nn.Module:
    """About ten thousand parameters, 40 KB."""
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(8, 16, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(256, 32),
        nn.ReLU(),
        nn.Linear(32, 10),
    )


def train(images: np.ndarray, labels: np.ndarray) -> nn.Module:
    """Adam on cross-entropy, batches of 32, everything seeded."""
    torch.manual_seed(0)
    torch.use_deterministic_algorithms(mode=True)
    model = network()
    x, y = torch.from_numpy(images), torch.from_numpy(labels)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, weight_decay=1e-4)
    for _ in range(EPOCHS):
        for batch in torch.randperm(len(x)).split(32):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x[batch]), y[batch]).backward()
            optimizer.step()
    return model.eval()


def export(model: nn.Module, path: Path) -> None:
    """Write ONNX with a free batch, without the traces and paths that the exporter adds."""
    program = torch.onnx.export(
        model,
        (torch.zeros(2, 1, 8, 8),),
        dynamo=True,
        opset_version=OPSET,
        input_names=["image"],
        output_names=["logits"],
        dynamic_shapes=({0: torch.export.Dim("batch")},),
        verbose=False,
    )
    proto = program.model_proto
    graph = proto.graph
    for item in (proto, graph, *graph.node, *graph.input, *graph.output, *graph.value_info):
        item.doc_string = ""
        del item.metadata_props[:]
    for tensor in graph.initializer:
        tensor.doc_string = ""
        del tensor.metadata_props[:]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(proto.SerializeToString(deterministic=True))


def infer(path: Path, images: np.ndarray) -> np.ndarray:
    """Logits (n, 10) by ONNX Runtime."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(["logits"], {"image": images})[0]


def split(count: int) -> dict[str, np.ndarray]:
    """Indexes of each part; the rest is `train`."""
    order = np.random.default_rng(0).permutation(count)
    parts, start = {}, 0
    for name, size in PARTS.items():
        parts[name] = order[start : start + size]
        start += size
    return parts | {"train": order[start:]}


def write_samples(pixels: np.ndarray, labels: np.ndarray, folder: Path) -> None:
    """Real images for devices: PNG files and `labels.csv`."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "labels.csv").open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["file", "label"])
        for number, (image, label) in enumerate(zip(pixels, labels, strict=True)):
            name = f"digit-{number:02}.png"
            Image.fromarray(image).save(folder / name, optimize=True)
            writer.writerow([name, label])


def main() -> None:
    """Train, export, write every data set, and print the accuracies."""
    digits = load_digits()
    pixels, labels = pixels_of(digits.images), digits.target.astype(np.int64)
    parts = split(len(pixels))
    write_samples(
        pixels[parts["samples"]], labels[parts["samples"]], MANIFESTS / "samples" / "digits"
    )
    for version, count, dark_ink in (
        ("1.0.0", 600, False),
        ("1.1.0", len(parts["train"]), False),
        ("1.2.0", len(parts["train"]), True),
    ):
        images = tensors_of(pixels, dark_ink=dark_ink)
        used = parts["train"][:count]
        path = MANIFESTS / "models" / f"digits-{version}.onnx"
        export(train(images[used], labels[used]), path)
        data = MANIFESTS / "data" / "digits" / version
        chosen = {name: images[parts[name]] for name in ("calibration", "evaluation", "golden")}
        write_npz(data / "calibration.npz", image=chosen["calibration"])
        write_npz(
            data / "evaluation.npz", image=chosen["evaluation"], label=labels[parts["evaluation"]]
        )
        write_npz(data / "golden.npz", image=chosen["golden"], logits=infer(path, chosen["golden"]))
        declared = tensors_of(pixels[parts["samples"]], dark_ink=False)
        for what, inputs, part in (
            ("evaluation tensors", chosen["evaluation"], "evaluation"),
            ("device images, pre-processed as the manifest says", declared, "samples"),
        ):
            correct = infer(path, inputs).argmax(axis=1) == labels[parts[part]]
            print(f"{version}: accuracy {correct.mean():.4f} on {what}")
        onnx.checker.check_model(path, full_check=True)


if __name__ == "__main__":
    main()
