"""Trains the pump model and writes its data sets.

Needs more than edgectl does, so it runs in an environment of its own:

    pip install tensorflow-cpu==2.21.0 pyyaml
    PYTHONPATH=. python manifests/training/train_pump.py

A centrifugal pump, simulated: 64 moments at 500 Hz of four sensors (vibration in x and y in g,
pressure in bar, motor current in A), over many speeds and loads. An autoencoder learns healthy
windows alone; five kinds of fault, none of which it ever saw, are told by what it cannot
reconstruct. The parts share no window, and every window has a speed, a load and noise of its own:

    golden 4, calibration 100, evaluation 400 healthy and 60 of each fault, training 12,000,
    device samples 5 healthy and 1 of each fault

The sensors' values are scaled by edgectl's own transforms, as the manifest declares them.
"""

import os
from collections.abc import Callable
from pathlib import Path

os.environ |= {
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "CUDA_VISIBLE_DEVICES": "",
    "TF_ENABLE_ONEDNN_OPTS": "0",
}

import numpy as np
import tensorflow as tf
import yaml
from dataset import write_npz

from edgectl.engine.transforms import registry

MANIFESTS = Path(__file__).resolve().parent.parent
MOMENTS, RATE = 64, 500.0
MANIFEST = MANIFESTS / "models" / "pump.yaml"
SENSORS = ("vibrationX", "vibrationY", "pressure", "current")
BLADES = 5
EPOCHS = 40


def healthy(rng: np.random.Generator) -> tuple[np.ndarray, float, float]:
    """A window (64, 4) in the sensors' own units, with its speed in Hz and its phase."""
    speed, load, phase = rng.uniform(22, 28), rng.uniform(0.4, 1.0), rng.uniform(0, 2 * np.pi)
    turn = 2 * np.pi * speed * np.arange(MOMENTS) / RATE + phase
    mains = 2 * np.pi * 100 * np.arange(MOMENTS) / RATE + rng.uniform(0, 2 * np.pi)
    swing = 0.45 + 0.25 * load
    window = np.stack(
        [
            swing * np.sin(turn)
            + 0.2 * np.sin(2 * turn + 0.4)
            + 0.12 * load * np.sin(BLADES * turn),
            0.8 * swing * np.cos(turn) + 0.15 * np.cos(2 * turn + 0.4),
            2.0 + 2.5 * load + 0.12 * load * np.sin(BLADES * turn + 0.7),
            3.0 + 4.0 * load + 0.15 * np.sin(turn + 1.1) + 0.10 * np.sin(mains),
        ],
        axis=1,
    )
    return window + rng.normal(size=window.shape) * [0.05, 0.05, 0.02, 0.04], speed, phase


def unbalance(window: np.ndarray, turn: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A heavy spot on the impeller: more vibration once a turn."""
    return window + rng.uniform(0.35, 0.8) * np.stack(
        [np.sin(turn + 0.9), 0.8 * np.cos(turn + 0.9), 0 * turn, 0 * turn], axis=1
    )


def misalignment(window: np.ndarray, turn: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Shafts that do not meet: vibration twice a turn, mostly across."""
    return window + rng.uniform(0.25, 0.6) * np.stack(
        [0.4 * np.sin(2 * turn), np.cos(2 * turn + 1.3), 0 * turn, 0 * turn], axis=1
    )


def bearing(window: np.ndarray, turn: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A pitted race: a decaying ring at each pass of a ball, 3.6 times a turn."""
    since = np.mod(3.6 * turn, 2 * np.pi)
    ring = rng.uniform(0.3, 0.8) * np.exp(-since) * np.sin(11 * since)
    return window + np.stack([ring, 0.7 * ring, 0 * turn, 0 * turn], axis=1)


def cavitation(window: np.ndarray, _: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Bubbles that collapse: noise in vibration and pressure, and less pressure."""
    noise = rng.normal(size=window.shape) * [0.2, 0.2, 0.12, 0.05]
    return window + rng.uniform(0.7, 1.4) * (noise - [0, 0, 0.25, 0])


def blockage(window: np.ndarray, _: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A closed valve: the pressure rises and the current falls, against what they do together."""
    change = rng.uniform(0.5, 1.2)
    return window + change * np.array([0, 0, 0.8, -1.0])


FAULTS: tuple[Callable[..., np.ndarray], ...] = (
    unbalance, misalignment, bearing, cavitation, blockage,
)  # fmt: skip


def tensors_of(windows: list[np.ndarray]) -> np.ndarray:
    """Windows as the network's input: float32 (n, 256), by the steps that the manifest declares
    for a row once it is read.

    Rounded to what half precision holds, far below the sensors' noise, so that they compress.
    """
    declared = yaml.safe_load(MANIFEST.read_text())["spec"]["inputs"][0]["preprocess"]
    rows = []
    for values in windows:
        for step in declared[1:]:
            values = registry.read_pre(step).apply(values)
        rows.append(values)
    return np.stack(rows).astype(np.float16).astype(np.float32)


def simulate(count: int, seed: int, fault: Callable[..., np.ndarray] | None) -> list[np.ndarray]:
    """Windows (64, 4), healthy or with one kind of fault."""
    rng = np.random.default_rng(seed)
    windows = []
    for _ in range(count):
        window, speed, phase = healthy(rng)
        if fault is not None:
            turn = 2 * np.pi * speed * np.arange(MOMENTS) / RATE + phase
            window = fault(window, turn, rng)
        windows.append(window)
    return windows


def network() -> tf.keras.Model:
    """256 to 48 to 10 and back: 26 thousand parameters in fully connected layers alone."""
    dense = tf.keras.layers.Dense
    window = tf.keras.layers.Input((MOMENTS * len(SENSORS),), name="window")
    code = dense(10, activation="relu")(dense(48, activation="relu")(window))
    reconstruction = dense(window.shape[1])(dense(48, activation="relu")(code))
    return tf.keras.Model({"window": window}, {"reconstruction": reconstruction})


def train(inputs: np.ndarray) -> tf.keras.Model:
    """Adam on the squared error, everything seeded."""
    tf.keras.utils.set_random_seed(0)
    tf.config.experimental.enable_op_determinism()
    model = network()
    rate = tf.keras.optimizers.schedules.CosineDecay(2e-3, EPOCHS * (len(inputs) // 64))
    model.compile(tf.keras.optimizers.Adam(rate), "mse")
    model.fit(
        {"window": inputs}, {"reconstruction": inputs}, batch_size=64, epochs=EPOCHS, verbose=2
    )
    return model


def convert(model: tf.keras.Model) -> bytes:
    """A float .tflite file with a free batch; its signature has the names of input and output."""
    return tf.lite.TFLiteConverter.from_keras_model(model).convert()


def infer(content: bytes, inputs: np.ndarray) -> np.ndarray:
    """Reconstructions (n, 256) by the TFLite interpreter."""
    interpreter = tf.lite.Interpreter(model_content=content, num_threads=1)
    run = interpreter.get_signature_runner("serving_default")
    return np.concatenate([run(window=row[None])["reconstruction"] for row in inputs])


def auc(scores: np.ndarray, labels: np.ndarray) -> float:
    """The chance that an anomaly scores above a healthy window."""
    above = scores[labels == 1][:, None] - scores[labels == 0][None]
    return float(((above > 0) + 0.5 * (above == 0)).mean())


def write_samples(folder: Path) -> None:
    """Windows for devices: CSV files and `labels.csv`, where 1 is a fault."""
    folder.mkdir(parents=True, exist_ok=True)
    windows = [(window, 0) for window in simulate(5, 10, None)]
    windows += [(simulate(1, 11 + n, fault)[0], 1) for n, fault in enumerate(FAULTS)]
    table = ["file,label"]
    for number, (window, label) in enumerate(windows):
        lines = [",".join(SENSORS), *(",".join(f"{v:.3f}" for v in moment) for moment in window)]
        (folder / f"window-{number:02}.csv").write_text("\n".join(lines) + "\n")
        table.append(f"window-{number:02}.csv,{label}")
    (folder / "labels.csv").write_text("\n".join(table) + "\n")


def main() -> None:
    """Train, convert, write every data set, and print the areas under the ROC curve."""
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    content = convert(train(tensors_of(simulate(12_000, 1, None))))
    (MANIFESTS / "models" / "pump-1.0.0.tflite").write_bytes(content)
    folder = MANIFESTS / "data" / "pump" / "1.0.0"
    golden = tensors_of(simulate(4, 2, None))
    write_npz(folder / "golden.npz", window=golden, reconstruction=infer(content, golden))
    write_npz(folder / "calibration.npz", window=tensors_of(simulate(100, 3, None)))
    write_samples(MANIFESTS / "samples" / "pump")
    parts = [*simulate(400, 4, None)]
    for index, fault in enumerate(FAULTS):
        parts += simulate(60, 5 + index, fault)
    windows = tensors_of(parts)
    labels = np.repeat(np.int64([0, 1]), [400, len(windows) - 400])
    write_npz(folder / "evaluation.npz", window=windows, label=labels)
    scores = ((infer(content, windows) - windows) ** 2).mean(axis=1)
    print(f"AUC {auc(scores, labels):.4f} on {len(windows)} windows it has not seen")
    for index, fault in enumerate(FAULTS):
        rows = np.r_[:400, 400 + 60 * index : 460 + 60 * index]
        print(f"  {fault.__name__}: {auc(scores[rows], labels[rows]):.4f}")


if __name__ == "__main__":
    main()
