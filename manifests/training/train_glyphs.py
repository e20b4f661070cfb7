"""Trains the glyphs model and writes it in three formats, with its data sets.

Needs more than edgectl does, so it runs in an environment of its own, with the fonts that
`glyph_pictures` lists:

    pip install torch==2.13.0 openvino coremltools onnxscript pillow
    python manifests/training/train_glyphs.py

A MobileNetV2 (Sandler et al., 2018) of 0.24 million parameters: inverted residuals of the width of
its 0.5 variant, with strides for 64x64 pixels. Pictures are grey, 8 bits, x/128 - 1.

    training 99,000 and calibration 90: fonts of TRAIN_FONTS
    evaluation 540, golden 6 and device samples 24: fonts of TEST_FONTS, which training never saw

- models/glyphs-1.0.0.pt2: the `torch.export` program (fp32)
- models/glyphs-1.0.0.openvino/: OpenVINO IR of it (fp32)
- models/glyphs-1.0.0.mlpackage/: Core ML of it (weights and arithmetic fp16)
"""

import csv
import json
import shutil
import uuid
from pathlib import Path

import coremltools
import numpy as np
import openvino
import torch
from dataset import write_npz
from glyph_pictures import CLASSES, LABELS, TEST_FONTS, TRAIN_FONTS, Artist, font_files
from mobilenet import InvertedResidual, convolution, fused
from PIL import Image
from program import save_program
from torch import nn

MANIFESTS = Path(__file__).resolve().parent.parent
NAME = "glyphs-1.0.0"
DRAWN, PASSES, BATCH = 99_000, 3, 128
MOST_ROWS = 64
"""Largest batch of the exported programs."""


def tensors_of(pixels: np.ndarray) -> np.ndarray:
    """Grey bytes [n, h, w] as the network's input: float32 [n, 1, h, w], x/128 - 1."""
    return pixels[:, None].astype(np.float32) / np.float32(128) - np.float32(1)


def network() -> nn.Sequential:
    """Pictures [n, 1, 64, 64] to logits [n, classes]."""
    layers: list[nn.Module] = [convolution(1, 16, 3, stride=2)]
    width = 16
    for expansion, out, repeats, stride in (
        (2, 16, 1, 2), (4, 24, 2, 2), (6, 32, 3, 2), (6, 56, 3, 1), (6, 80, 1, 1),
    ):  # fmt: skip
        for number in range(repeats):
            first = stride if number == 0 else 1
            layers.append(InvertedResidual(width, out, expansion, first))
            width = out
    layers += [convolution(width, 256, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(*layers, nn.Dropout(0.1), nn.Linear(256, len(CLASSES)))


def train(pictures: np.ndarray, labels: np.ndarray) -> nn.Sequential:
    """AdamW on cross-entropy with one rise and fall of the rate; everything seeded."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(mode=True)
    model = network().to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3, weight_decay=2e-2)
    steps = PASSES * (len(labels) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=steps)
    for step in range(steps):
        if step % (len(labels) // BATCH) == 0:
            order = torch.randperm(len(labels)).split(BATCH)
        rows = order[step % (len(labels) // BATCH)].numpy()
        images = torch.from_numpy(tensors_of(pictures[rows]))
        loss = nn.functional.cross_entropy(
            model(images.to(memory_format=torch.channels_last)),
            torch.from_numpy(labels[rows]),
            label_smoothing=0.05,
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 250 == 0:
            print(f"step {step} of {steps}: loss {loss.item():.3f}", flush=True)
    return model.to(memory_format=torch.contiguous_format).eval()


def infer(model: nn.Module, images: np.ndarray) -> np.ndarray:
    """Logits [n, classes] by torch."""
    with torch.no_grad():
        parts = [model(part) for part in torch.from_numpy(images).split(MOST_ROWS)]
    return torch.cat(parts).numpy()


def write_openvino(program: torch.export.ExportedProgram, folder: Path) -> None:
    """The program as IR, fp32, its tensors named as the manifest names them."""
    model = openvino.convert_model(program, input=[(-1, 1, 64, 64)])
    model.inputs[0].get_tensor().set_names({"image"})
    model.outputs[0].get_tensor().set_names({"logits"})
    folder.mkdir(parents=True, exist_ok=True)
    openvino.save_model(model, folder / "model.xml", compress_to_fp16=False)


def write_coreml(program: torch.export.ExportedProgram, folder: Path) -> None:
    """The program as an ML Program for iOS 16 and later, without the clock."""
    shape = coremltools.Shape((coremltools.RangeDim(1, MOST_ROWS, default=1), 1, 64, 64))
    model = coremltools.convert(
        program.run_decompositions({}),
        inputs=[coremltools.TensorType("image", shape=shape, dtype=np.float32)],
        outputs=[coremltools.TensorType("logits", dtype=np.float32)],
        minimum_deployment_target=coremltools.target.iOS16,
        skip_model_load=True,
    )
    model.user_defined_metadata.pop("com.github.apple.coremltools.conversion_date", None)
    shutil.rmtree(folder, ignore_errors=True)
    model.save(str(folder))
    (folder / "executorch_debug_handle_mapping.json").unlink(missing_ok=True)
    _name_items(folder / "Manifest.json")
    file = folder / "Data" / "com.apple.CoreML" / "model.mlmodel"
    specification = coremltools.utils.load_spec(str(file))
    file.write_bytes(specification.SerializeToString(deterministic=True))


def _name_items(path: Path) -> None:
    """Identifiers made from what the items are, instead of by chance."""
    manifest = json.loads(path.read_text())
    items = manifest["itemInfoEntries"]
    names = {old: str(uuid.uuid5(uuid.NAMESPACE_URL, items[old]["path"])) for old in items}
    manifest["itemInfoEntries"] = {names[old]: items[old] for old in sorted(items, key=names.get)}
    manifest["rootModelIdentifier"] = names[manifest["rootModelIdentifier"]]
    path.write_text(json.dumps(manifest, indent=4) + "\n")


def write_samples(artist: Artist, folder: Path, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Pictures for devices: PNG and JPEG files and `labels.csv`. Returns pixels and labels."""
    pictures, labels = artist.many(count)
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "labels.csv").open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["file", "label"])
        for number, (pixels, label) in enumerate(zip(pictures, labels, strict=True)):
            name = f"glyph-{number:02}.{'jpg' if number % 4 == 3 else 'png'}"
            Image.fromarray(pixels).save(folder / name, optimize=True, quality=92)
            writer.writerow([name, LABELS[label]])
    return pictures, labels


def main() -> None:
    """Draw, train, export, write every data set, and print the accuracies."""
    known, unknown = font_files(TRAIN_FONTS), font_files(TEST_FONTS)
    model = fused(train(*Artist(known, seed=1).many(DRAWN)))
    batch = torch.export.Dim("batch", min=1, max=MOST_ROWS)
    program = torch.export.export(model, (torch.zeros(2, 1, 64, 64),), dynamic_shapes=({0: batch},))
    models = MANIFESTS / "models"
    save_program(program, models / f"{NAME}.pt2")
    write_openvino(program, models / f"{NAME}.openvino")
    write_coreml(program, models / f"{NAME}.mlpackage")

    data = MANIFESTS / "data" / "glyphs" / "1.0.0"
    write_npz(data / "calibration.npz", image=tensors_of(Artist(known, seed=2).many(90)[0]))
    pictures, labels = Artist(unknown, seed=3).many(540)
    write_npz(data / "evaluation.npz", image=tensors_of(pictures), label=labels)
    golden = tensors_of(Artist(unknown, seed=4).many(6)[0])
    write_npz(data / "golden.npz", image=golden, logits=infer(model, golden))
    sampled = write_samples(Artist(unknown, seed=5), MANIFESTS / "samples" / "glyphs", 24)
    many = Artist(unknown, seed=6).many(9000)
    for what, (images, right) in (
        ("evaluation.npz", (pictures, labels)),
        ("the device samples", sampled),
        ("9,000 more of unseen fonts", many),
        ("4,500 new pictures of the fonts of training", Artist(known, seed=7).many(4500)),
    ):
        accuracy = (infer(model, tensors_of(images)).argmax(axis=1) == right).mean()
        print(f"accuracy {accuracy:.4f} on {what}", flush=True)
    wrong = infer(model, tensors_of(many[0])).argmax(axis=1)
    pairs = [(CLASSES[a], CLASSES[b]) for a, b in zip(many[1], wrong, strict=True) if a != b]
    for pair in sorted(set(pairs), key=lambda each: -pairs.count(each))[:12]:
        print(f"{pair[0]} read as {pair[1]}: {pairs.count(pair)} of {len(many[1])}")


if __name__ == "__main__":
    main()
