"""Trains the parts detector and writes it as TorchScript, with its data sets.

Needs more than edgectl does, so it runs in an environment of its own:

    pip install torch==2.13.0 pillow
    python manifests/training/train_parts.py

An anchor-free detector in the manner of FCOS (Tian et al., 2019) on inverted residuals of
MobileNetV2: one box and a score of each class for every cell of a 16x16 grid over 128x128 pixels,
decoded inside the graph. The score is trained to be the box's overlap with the truth (as Li et al.,
2020, do it), so that the suppression, which the manifest declares, keeps the best box.

Scenes are drawn (`part_scenes`), each part from a seed of its own: training 3,200, calibration 48,
evaluation 160, golden 3, device samples 12.
"""

import csv
import json
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from dataset import write_npz
from detection import average_precision
from mobilenet import InvertedResidual, convolution, fused
from part_scenes import LABELS, MOST_PARTS, Bench, Scene
from PIL import Image
from torch import nn

MANIFESTS = Path(__file__).resolve().parent.parent
NAME = "parts-1.0.0"
SIZE, STRIDE = 128, 8
CELLS = SIZE // STRIDE
DRAWN, PASSES, BATCH, RATE = 3_200, 10, 16, 3e-3
FILL = 114


class Detector(nn.Module):
    """Pictures [n, 1, 128, 128] to boxes [n, 256, 4], in pixels, and scores [n, 256, classes]."""

    def __init__(self) -> None:
        super().__init__()
        self.fine = nn.Sequential(
            convolution(1, 16, 3, stride=2),
            InvertedResidual(16, 16, 2, 2),
            InvertedResidual(16, 24, 4, 2),
            InvertedResidual(24, 32, 4, 1),
            InvertedResidual(32, 32, 4, 1),
        )
        self.coarse = nn.Sequential(
            InvertedResidual(32, 64, 4, 2),
            InvertedResidual(64, 64, 4, 1),
            InvertedResidual(64, 64, 4, 1),
            convolution(64, 48, 1),
            nn.Upsample(scale_factor=2.0, mode="nearest"),
        )
        self.side = convolution(32, 48, 1)
        self.head = nn.Sequential(
            convolution(48, 48, 3, groups=48), convolution(48, 64, 1),
            convolution(64, 64, 3, groups=64), convolution(64, 64, 1),
        )  # fmt: skip
        self.reach = nn.Conv2d(64, 4, 1)
        self.kind = nn.Conv2d(64, len(LABELS), 1)
        nn.init.constant_(self.reach.bias, 2.0)
        nn.init.constant_(self.kind.bias, -4.0)
        rows = (torch.arange(CELLS) + 0.5) * STRIDE
        down, across = torch.meshgrid(rows, rows, indexing="ij")
        middles = torch.stack([across, down], dim=-1).reshape(1, -1, 2)
        self.register_buffer("middles", middles)

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Boxes, and logits while training or scores of 0 to 1 after it."""
        fine = self.fine(image)
        features = self.head(self.side(fine) + self.coarse(fine))
        reach = torch.relu(self.reach(features)).flatten(2).transpose(1, 2) * STRIDE
        boxes = torch.cat([self.middles - reach[..., :2], self.middles + reach[..., 2:]], dim=2)
        kind = self.kind(features).flatten(2).transpose(1, 2)
        return (boxes, kind) if self.training else (boxes.clamp(0, SIZE), torch.sigmoid(kind))


@dataclass(frozen=True)
class Scenes:
    """Scenes as the model takes them; boxes are padded with -1 and so are classes."""

    pixels: np.ndarray
    """uint8 [n, 128, 128]."""
    boxes: np.ndarray
    """float32 [n, 8, 4]."""
    classes: np.ndarray
    """int64 [n, 8]."""


def fitted(scene: Scene) -> tuple[np.ndarray, np.ndarray]:
    """Picture and boxes fitted into 128x128 as the manifest's `resize: contain` does it."""
    height, width = scene.pixels.shape
    scale = SIZE / max(height, width)
    wide, high = round(width * scale), round(height * scale)
    left, top = (SIZE - wide) // 2, (SIZE - high) // 2
    canvas = np.full((SIZE, SIZE), FILL, np.uint8)
    small = Image.fromarray(scene.pixels).resize((wide, high), Image.Resampling.BILINEAR)
    canvas[top : top + high, left : left + wide] = np.asarray(small)
    factor = np.array([wide / width, high / height] * 2, np.float32)
    return canvas, scene.boxes * factor + np.array([left, top] * 2, np.float32)


def draw(seed: int, count: int) -> Scenes:
    """Scenes of a bench."""
    bench = Bench(seed)
    pixels = np.empty((count, SIZE, SIZE), np.uint8)
    boxes = np.full((count, MOST_PARTS, 4), -1, np.float32)
    classes = np.full((count, MOST_PARTS), -1, np.int64)
    for row in range(count):
        scene = bench.scene()
        pixels[row], placed = fitted(scene)
        boxes[row, : len(placed)] = placed
        classes[row, : len(placed)] = scene.classes
    return Scenes(pixels, boxes, classes)


def tensors_of(pixels: np.ndarray) -> np.ndarray:
    """Grey bytes [n, h, w] as the network's input: float32 [n, 1, h, w], x/128 - 1."""
    return pixels[:, None].astype(np.float32) / np.float32(128) - np.float32(1)


def turned(
    images: torch.Tensor, boxes: torch.Tensor, rng: np.random.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """A batch mirrored and transposed by chance, its contrast changed or inverted."""
    x1, y1, x2, y2 = boxes.unbind(-1)
    if rng.random() < 0.5:
        images, x1, x2 = images.flip(3), SIZE - x2, SIZE - x1
    if rng.random() < 0.5:
        images, y1, y2 = images.flip(2), SIZE - y2, SIZE - y1
    if rng.random() < 0.5:
        images, x1, y1, x2, y2 = images.transpose(2, 3), y1, x1, y2, x2
    gain = rng.uniform(0.6, 1.3) * (1 if rng.random() < 0.7 else -1)
    images = (images * gain + rng.uniform(-0.2, 0.2)).clamp(-1, 1)
    return images, torch.stack([x1, y1, x2, y2], dim=-1)


def overlaps(a: torch.Tensor, b: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """IoU and generalised IoU (Rezatofighi et al., 2019) of boxes [..., 4], pair by pair."""
    shared = torch.minimum(a[..., 2:], b[..., 2:]) - torch.maximum(a[..., :2], b[..., :2])
    around = torch.maximum(a[..., 2:], b[..., 2:]) - torch.minimum(a[..., :2], b[..., :2])
    both = shared.clamp(min=0).prod(-1)
    union = (a[..., 2:] - a[..., :2]).prod(-1) + (b[..., 2:] - b[..., :2]).prod(-1) - both
    hull = around.prod(-1).clamp(min=1e-6)
    iou = both / union.clamp(min=1e-6)
    return iou, iou - (hull - union) / hull


def assigned(middles: torch.Tensor, boxes: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
    """For each cell, [n, 256], the box that it is to find, -1 for none: the smallest of those whose
    middle is within a stride and a half of the cell's and which hold the cell's middle."""
    x1, y1, x2, y2 = (side.unsqueeze(1) for side in boxes.unbind(-1))
    across, down = middles[..., :1], middles[..., 1:]
    near = ((across - (x1 + x2) / 2).abs() < 1.5 * STRIDE) & (
        (down - (y1 + y2) / 2).abs() < 1.5 * STRIDE
    )
    inside = (across > x1) & (across < x2) & (down > y1) & (down < y2)
    area = ((x2 - x1) * (y2 - y1)).expand(near.shape)
    area = area.masked_fill(~(near & inside & (classes >= 0).unsqueeze(1)), torch.inf)
    smallest, which = area.min(dim=2)
    return which.masked_fill(smallest.isinf(), -1)


def loss_of(model: Detector, images: torch.Tensor, boxes: torch.Tensor, classes: torch.Tensor):
    """Cross-entropy of the scores, that of empty cells focal, and generalised IoU of the boxes."""
    found, logits = model(images)
    which = assigned(model.middles, boxes, classes)
    row, cell = torch.nonzero(which >= 0, as_tuple=True)
    place = which[row, cell]
    iou, generalised = overlaps(found[row, cell], boxes[row, place])
    wanted = torch.zeros_like(logits)
    wanted[row, cell, classes[row, place]] = iou.detach().clamp(0, 1)
    weight = torch.sigmoid(logits.detach()).square()
    weight[row, cell] = 1.0
    binary = nn.functional.binary_cross_entropy_with_logits(logits, wanted, reduction="none")
    return ((weight * binary).sum() + 2 * (1 - generalised).sum()) / max(1, len(row))


def train(scenes: Scenes) -> Detector:
    """AdamW with one rise and fall of the rate; everything seeded."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(mode=True)
    rng = np.random.default_rng(0)
    model = Detector().to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=1e-2)
    each = len(scenes.pixels) // BATCH
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=PASSES * each)
    for step in range(PASSES * each):
        if step % each == 0:
            order = rng.permutation(len(scenes.pixels))
        rows = order[step % each * BATCH :][:BATCH]
        images, boxes = turned(
            torch.from_numpy(tensors_of(scenes.pixels[rows])),
            torch.from_numpy(scenes.boxes[rows]),
            rng,
        )
        images = images.contiguous(memory_format=torch.channels_last)
        loss = loss_of(model, images, boxes, torch.from_numpy(scenes.classes[rows]))
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()
        schedule.step()
        if step % 200 == 0:
            print(f"step {step} of {PASSES * each}: loss {loss.item():.3f}", flush=True)
    return model.to(memory_format=torch.contiguous_format).eval()


def save_script(model: nn.Module, path: Path) -> None:
    """TorchScript without the debug records, which hold the paths of the machine it was made on."""
    traced = torch.jit.freeze(torch.jit.trace(model, torch.zeros(2, 1, SIZE, SIZE)))
    path.parent.mkdir(parents=True, exist_ok=True)
    whole = path.with_suffix(".whole")
    traced.save(str(whole))
    with zipfile.ZipFile(whole) as source, zipfile.ZipFile(path, "w") as target:
        for name in source.namelist():
            if not name.endswith(".debug_pkl"):
                member = zipfile.ZipInfo(f"{NAME}/{name.partition('/')[2]}", (1980, 1, 1, 0, 0, 0))
                target.writestr(member, source.read(name))
    whole.unlink()


def infer(path: Path, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Boxes and scores by the TorchScript file."""
    model = torch.jit.load(path)
    with torch.no_grad():
        parts = [model(part) for part in torch.from_numpy(images).split(32)]
    return tuple(torch.cat(side).numpy() for side in zip(*parts, strict=True))


def write_samples(folder: Path, seed: int, count: int) -> None:
    """Whole scenes for devices: PNG and JPEG files, `labels.csv` (the classes that are to be seen)
    and `boxes.json` (where, in pixels of the picture)."""
    bench = Bench(seed)
    folder.mkdir(parents=True, exist_ok=True)
    truth = {}
    with (folder / "labels.csv").open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["file", "label"])
        for number in range(count):
            scene = bench.scene()
            name = f"scene-{number:02}.{'png' if number % 4 == 3 else 'jpg'}"
            Image.fromarray(scene.pixels).save(folder / name, optimize=True, quality=88)
            names = [LABELS[each] for each in scene.classes]
            writer.writerow([name, " ".join(sorted(names)) or "none"])
            truth[name] = [
                {"label": label, "box": [float(side) for side in box]}
                for label, box in zip(names, scene.boxes, strict=True)
            ]
    (folder / "boxes.json").write_text(json.dumps(truth, indent=1) + "\n")


def main() -> None:
    """Draw, train, export, write every data set, and print the average precision."""
    path = MANIFESTS / "models" / f"{NAME}.pt"
    save_script(fused(train(draw(11, DRAWN))), path)
    data = MANIFESTS / "data" / "parts" / "1.0.0"
    write_npz(data / "calibration.npz", image=tensors_of(draw(12, 48).pixels))
    test = draw(13, 160)
    write_npz(
        data / "evaluation.npz",
        image=tensors_of(test.pixels),
        boxes=test.boxes,
        classes=test.classes,
    )
    golden = tensors_of(draw(14, 3).pixels)
    boxes, scores = infer(path, golden)
    write_npz(data / "golden.npz", image=golden, boxes=boxes, scores=scores)
    write_samples(MANIFESTS / "samples" / "parts", 15, 12)
    for what, scenes in (("evaluation.npz", test), ("600 more scenes", draw(16, 600))):
        found = infer(path, tensors_of(scenes.pixels))
        for threshold in (0.05, 0.3):
            values = average_precision(*found, scenes.boxes, scenes.classes, threshold=threshold)
            print(f"{what}, scores from {threshold}: map50 {values[0]:.4f}, map {values[1]:.4f}")


if __name__ == "__main__":
    main()
