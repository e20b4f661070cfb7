"""Trains the offers model, which says what a shopper will take next, and writes its data sets.

Needs more than edgectl does, so it runs in an environment of its own:

    pip install torch==2.13.0 onnx onnxscript onnxruntime
    python manifests/training/train_offers.py

No public data set of what people chose comes with a package, so the shoppers are invented, and the
figures say how much of a known structure is found again, not how well anyone's customers would be
served. Each of 200 offers, in eight aisles, has a place among twelve hidden tastes, a price and a
fame; each shopper has tastes, a purse and a basket of 20 offers, taken one after the other by
chance: likelier the closer to the shopper's tastes, in the aisle of the offer before, and the more
famous. An offer may be taken again.
Seen are the offers taken and eight facts that depend on the tastes, with noise. The last offer is
held out, and the shoppers of each part are others:

    training 12,000, calibration 200, evaluation 2,000, golden 4, device samples 6
"""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from dataset import write_npz
from torch import nn

MANIFESTS = Path(__file__).resolve().parent.parent
AISLES = ("bakery", "coffee", "dairy", "fruit", "garden", "household", "snacks", "toys")
OFFERS, TASTES, FACTS, SEEN = 200, 12, 8, 16
LABELS = tuple(
    f"{AISLES[number % len(AISLES)]}-{number // len(AISLES) + 1:02}" for number in range(OFFERS)
)
PARTS = {"golden": 4, "samples": 6, "calibration": 200, "evaluation": 2000, "train": 12_000}
PASSES, BATCH = 40, 256
OPSET = 13


@dataclass(frozen=True)
class Shoppers:
    """What is seen of shoppers, and what they took next."""

    features: np.ndarray
    """float32 [n, 8]: facts about each."""
    history: np.ndarray
    """int64 [n, 16]: the offers taken, oldest first, counted from 1; 0 where there was none."""
    next: np.ndarray
    """int64 [n]: the offer taken after those, counted from 0."""
    chances: np.ndarray
    """float64 [n, 200]: how likely each offer was; no model can know more."""

    def rows(self, chosen: slice) -> "Shoppers":
        """Some of the shoppers."""
        return Shoppers(
            self.features[chosen], self.history[chosen], self.next[chosen], self.chances[chosen]
        )


class Market:
    """The offers and how shoppers come to take them."""

    def __init__(self, seed: int) -> None:
        self._random = rng = np.random.default_rng(seed)
        aisles = np.arange(OFFERS) % len(AISLES)
        centres = rng.normal(0, 1, (len(AISLES), TASTES))
        self._places = centres[aisles] * 0.8 + rng.normal(0, 0.9, (OFFERS, TASTES))
        self._prices = rng.normal(0, 1, OFFERS)
        self._fame = rng.gumbel(0, 0.6, OFFERS)
        self._same_aisle = (aisles[:, None] == aisles[None, :]).astype(float)
        self._telling = rng.normal(0, 1, (TASTES + 1, FACTS)) / np.sqrt(TASTES)

    def shoppers(self, count: int) -> Shoppers:
        """Shoppers with baskets of their own."""
        rng = self._random
        tastes, purses = rng.normal(0, 1, (count, TASTES)), rng.normal(0, 1, (count, 1))
        liking = tastes @ self._places.T * 0.5 + purses * self._prices * 0.5 + self._fame
        facts = np.hstack([tastes, purses]) @ self._telling + rng.normal(0, 0.5, (count, FACTS))
        taken, chances = [], softmax(liking)
        for _ in range(SEEN + 4):
            drawn = rng.random((count, 1)) < chances.cumsum(axis=1)
            taken.append(drawn.argmax(axis=1))
            chances = softmax(liking + 1.2 * self._same_aisle[taken[-1]])
        history = np.stack(taken[-SEEN - 1 : -1], axis=1) + 1
        lengths = rng.integers(3, SEEN + 1, (count, 1))
        history[np.arange(SEEN) < SEEN - lengths] = 0
        before = softmax(liking + 1.2 * self._same_aisle[taken[-2]])
        return Shoppers(facts.astype(np.float32), history.astype(np.int64), taken[-1], before)


def softmax(values: np.ndarray) -> np.ndarray:
    """Over the last axis."""
    raised = np.exp(values - values.max(axis=-1, keepdims=True))
    return raised / raised.sum(axis=-1, keepdims=True)


class TwoTowers(nn.Module):
    """Facts [n, 8] and history [n, 16] to a score of each offer, [n, 200].

    One tower puts the shopper, the other one vector for each offer, in one space of 32 dimensions;
    the score is their product, and the offer's own fame.
    """

    def __init__(self) -> None:
        super().__init__()
        self.taken = nn.Embedding(OFFERS + 1, 32, padding_idx=0)
        self.shopper = nn.Sequential(
            nn.Linear(FACTS + 64, 96), nn.ReLU(), nn.Dropout(0.1), nn.Linear(96, 32)
        )
        self.offers = nn.Linear(32, OFFERS)

    def forward(self, features: torch.Tensor, history: torch.Tensor) -> torch.Tensor:
        """Scores, not probabilities."""
        vectors = self.taken(history)
        count = (history > 0).to(vectors.dtype).sum(dim=1, keepdim=True).clamp(min=1.0)
        parts = [features, vectors.sum(dim=1) / count, vectors[:, -1]]
        return self.offers(self.shopper(torch.cat(parts, dim=1)))


def train(shoppers: Shoppers) -> nn.Module:
    """AdamW on cross-entropy over all offers; everything seeded.

    Each shopper teaches more than once: any offer in the history follows from those before it.
    """
    torch.manual_seed(0)
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(mode=True)
    rng = np.random.default_rng(0)
    model = TwoTowers()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=1e-2)
    basket = np.hstack([shoppers.history, shoppers.next[:, None] + 1])
    steps = PASSES * (len(basket) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=steps)
    for step in range(steps):
        rows = rng.integers(len(basket), size=BATCH)
        history, wanted = earlier(basket[rows], rng)
        scores = model(torch.from_numpy(shoppers.features[rows]), torch.from_numpy(history))
        loss = nn.functional.cross_entropy(scores, torch.from_numpy(wanted))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 250 == 0:
            print(f"step {step} of {steps}: loss {loss.item():.3f}", flush=True)
    return model.eval()


def earlier(baskets: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Baskets [n, 17] cut off at a place by chance: histories [n, 16] and what came next [n]."""
    taken = (baskets > 0).sum(axis=1)
    back = rng.integers(0, np.maximum(1, taken - 3))
    places = np.arange(SEEN + 1)[None, :] - back[:, None]
    moved = np.where(places >= 0, np.take_along_axis(baskets, np.maximum(places, 0), axis=1), 0)
    return moved[:, :-1], moved[:, -1] - 1


def export(model: nn.Module, path: Path) -> None:
    """Write ONNX with a free batch, without the traces and paths that the exporter adds."""
    batch = {0: "batch"}
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.onnx.export(
        model,
        (torch.zeros(2, FACTS), torch.ones(2, SEEN, dtype=torch.int64)),
        path,
        dynamo=False,
        opset_version=OPSET,
        input_names=["features", "history"],
        output_names=["scores"],
        dynamic_axes={"features": batch, "history": batch, "scores": batch},
    )
    proto = onnx.load(path)
    for item in (proto, proto.graph, *proto.graph.node):
        item.doc_string = ""
        del item.metadata_props[:]
    path.write_bytes(proto.SerializeToString(deterministic=True))
    onnx.checker.check_model(path, full_check=True)


def ranking(scores: np.ndarray, wanted: np.ndarray) -> tuple[float, float]:
    """Hit rate and NDCG among the ten best of all offers."""
    right = scores[np.arange(len(wanted)), wanted]
    place = (scores > right[:, None]).sum(axis=1)
    gain = np.where(place < 10, 1 / np.log2(place + 2), 0)
    return float((place < 10).mean()), float(gain.mean())


def write_samples(shoppers: Shoppers, folder: Path) -> None:
    """Requests of the Open Inference Protocol, to be posted as they are, and `labels.csv`."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = ["file,label"]
    for number, (features, history) in enumerate(
        zip(shoppers.features, shoppers.history, strict=True)
    ):
        name = f"shopper-{number}.json"
        tensors = [
            {"name": "features", "datatype": "FP32", "shape": [1, FACTS],
             "data": [round(float(value), 4) for value in features]},
            {"name": "history", "datatype": "INT64", "shape": [1, SEEN],
             "data": history.tolist()},
        ]  # fmt: skip
        (folder / name).write_text(json.dumps({"inputs": tensors}) + "\n")
        lines.append(f"{name},{LABELS[shoppers.next[number]]}")
    (folder / "labels.csv").write_text("\n".join(lines) + "\n")


def main() -> None:
    """Invent, train, export, write every data set, and print what is found."""
    everyone = Market(seed=0).shoppers(sum(PARTS.values()))
    parts, start = {}, 0
    for name, size in PARTS.items():
        parts[name] = everyone.rows(slice(start, start + size))
        start += size
    path = MANIFESTS / "models" / "offers-1.0.0.onnx"
    export(train(parts["train"]), path)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])

    def inputs(name: str) -> dict[str, np.ndarray]:
        return {"features": parts[name].features, "history": parts[name].history}

    def infer(name: str) -> np.ndarray:
        return session.run(["scores"], inputs(name))[0]

    data = MANIFESTS / "data" / "offers" / "1.0.0"
    write_npz(data / "calibration.npz", **inputs("calibration"))
    write_npz(data / "evaluation.npz", **inputs("evaluation"), label=parts["evaluation"].next)
    write_npz(data / "golden.npz", **inputs("golden"), scores=infer("golden"))
    write_samples(parts["samples"], MANIFESTS / "samples" / "offers")
    test, known = parts["evaluation"], parts["train"]
    taken = np.append(known.history[known.history > 0] - 1, known.next)
    fame = np.bincount(taken, minlength=OFFERS)
    for what, scores in (
        ("the model", infer("evaluation")),
        ("the most taken offers", np.broadcast_to(fame, (len(test.next), OFFERS))),
        ("what was taken last, then the most taken", last_taken(test.history, fame)),
        ("the chances themselves, which no model can beat", test.chances),
    ):
        hits, gain = ranking(scores.astype(np.float64), test.next)
        print(f"hit rate@10 {hits:.4f}, ndcg@10 {gain:.4f}: {what}")


def last_taken(history: np.ndarray, fame: np.ndarray) -> np.ndarray:
    """Scores [n, 200] of a shelf that shows a shopper's own past first."""
    scores = np.repeat(fame[None, :] / (fame.max() + 1.0), len(history), axis=0)
    for place in range(SEEN):
        rows = np.flatnonzero(history[:, place])
        scores[rows, history[rows, place] - 1] += 1
    return scores


if __name__ == "__main__":
    main()
