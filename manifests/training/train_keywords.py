"""Trains the keywords model and writes its data sets.

Needs more than edgectl does, so it runs in an environment of its own, with edgectl's checkout on
the path (the features are made by edgectl's own transforms, as the manifest declares them):

    apt-get install espeak-ng
    pip install tensorflow-cpu==2.21.0 pyyaml
    PYTHONPATH=. python manifests/training/train_keywords.py

Ten words, other words, and none at all, spoken by espeak-ng in eight accents of English at many
speeds and pitches, with six kinds of noise 3 to 30 dB below them. The voices of the evaluation are
not heard in the training, and neither are the other words that stand for `unknown` there:

    golden 4, samples 24, evaluation 600 (test voices); calibration 120, training 9,000
"""

import csv
import io
import os
import zipfile
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
from speech import BABBLE, RATE, disturb, place, speak, wav

from edgectl.engine.transforms import registry

MANIFESTS = Path(__file__).resolve().parent.parent
MANIFEST = MANIFESTS / "models" / "keywords.yaml"
WORDS = ("yes", "no", "up", "down", "left", "right", "on", "off", "stop", "go")
LABELS = (*WORDS, "unknown", "silence")
OTHERS = {
    "train": ("house", "tree", "seven", "water", "bird", "happy", "table", "nine", "green", "wow",
              "marvin", "three", "backward", "visual", "sheila", "bed", "four", "river", "cat",
              "lamp", "open", "sugar", "wheel", "pencil", "under", "cup", "none", "lift", "rice",
              "stone", "gold", "half", "young", "town", "front", "near", "bottle", "one", "six"),
    "test": ("dog", "eight", "learn", "follow", "zero", "forward", "yellow", "two", "garden"),
}  # fmt: skip
VOICES = {
    "train": ("m1", "m2", "m3", "m4", "m5", "m6", "f1", "f2", "f3", "Alex", "Alicia", "Andy",
              "Annie", "Denis", "Diogo", "Gene", "Henrique", "Hugo", "Jacky", "Lee", "Marco",
              "Mario", "Michael", "Mr", "Nguyen", "adam", "anika", "announcer", "antonio", "aunty",
              "belinda", "benjamin", "boris", "caleb", "david", "ed", "edward", "grandma",
              "gustave", "iven", "john", "kaukovalta", "klatt", "klatt2", "klatt3", "linda",
              "marcelo", "max", "michel", "norbert", "pablo", "paul", "quincy", "rob", "sandro",
              "shelby", "steph", "travis"),
    "test": ("m7", "m8", "f4", "f5", "Andrea", "Gene2", "Mike", "Storm", "klatt4", "grandpa",
             "miguel", "pedro", "robert", "victor", "zac", "edward2"),
}  # fmt: skip
EPOCHS = 25


def clips(part: str, count: int, seed: int) -> tuple[list[bytes], np.ndarray]:
    """WAV files of one second and their labels, the classes in turn."""
    rng = np.random.default_rng(seed)
    voices = VOICES[part]
    babble = [speak(text, rng.choice(voices), rng) for text in BABBLE]
    files, labels = [], np.arange(count) % len(LABELS)
    for label in labels:
        clip = np.zeros(RATE)
        if LABELS[label] != "silence":
            other = rng.choice(OTHERS[part])
            text = other if LABELS[label] == "unknown" else LABELS[label]
            tract = rng.uniform(0.85, 1.18) if part == "train" else 1.0
            clip = place(speak(text, rng.choice(voices), rng, tract=tract), rng)
        files.append(wav(disturb(clip, rng, babble)))
    return files, labels.astype(np.int64)


def tensors_of(files: list[bytes]) -> np.ndarray:
    """WAV files as the network's input, by the pre-processing that the manifest declares.

    Rounded to what half precision holds, a thousandth of a step of int8, so that they compress.
    """
    declared = yaml.safe_load(MANIFEST.read_text())["spec"]["inputs"][0]["preprocess"]
    steps = [registry.read_pre(step) for step in declared]
    rows = []
    for value in files:
        for step in steps:
            value = step.apply(value)
        rows.append(value)
    return np.stack(rows).astype(np.float16).astype(np.float32)


def network() -> tf.keras.Model:
    """A depthwise separable CNN (Zhang et al., "Hello Edge", 2017), 14 thousand parameters."""
    layers = tf.keras.layers
    spectrogram = layers.Input((31, 32, 1), name="spectrogram")
    x = layers.Conv2D(48, (5, 5), strides=2, padding="same", use_bias=False)(spectrogram)
    x = layers.ReLU()(layers.BatchNormalization()(x))
    for stride in (1, 2, 1, 1):
        x = layers.DepthwiseConv2D(3, strides=stride, padding="same", use_bias=False)(x)
        x = layers.ReLU()(layers.BatchNormalization()(x))
        x = layers.Conv2D(48, 1, use_bias=False)(x)
        x = layers.ReLU()(layers.BatchNormalization()(x))
    x = layers.Dropout(0.3)(layers.GlobalAveragePooling2D()(x))
    return tf.keras.Model({"spectrogram": spectrogram}, {"logits": layers.Dense(len(LABELS))(x)})


def train(inputs: np.ndarray, labels: np.ndarray) -> tf.keras.Model:
    """Adam on cross-entropy, everything seeded."""
    tf.keras.utils.set_random_seed(0)
    tf.config.experimental.enable_op_determinism()
    model = network()
    rate = tf.keras.optimizers.schedules.CosineDecay(3e-3, EPOCHS * (len(inputs) // 64))
    loss = tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    optimizer = tf.keras.optimizers.AdamW(rate, weight_decay=1e-3)
    model.compile(optimizer, {"logits": loss})
    model.fit({"spectrogram": inputs}, {"logits": labels}, batch_size=64, epochs=EPOCHS, verbose=2)
    return model


def save(model: tf.keras.Model, path: Path) -> None:
    """A .keras file that is the same every time: Keras and ZIP both stamp the clock."""
    scratch = path.with_suffix(".scratch.keras")
    model.save(scratch)
    with zipfile.ZipFile(scratch) as source:
        members = {name: source.read(name) for name in sorted(source.namelist())}
    scratch.unlink()
    version = tf.keras.__version__
    members["metadata.json"] = (
        f'{{"keras_version": "{version}", "date_saved": "1980-01-01@00:00:00"}}'.encode()
    )
    with zipfile.ZipFile(path, "w") as target:
        for name, content in members.items():
            entry = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
            entry.compress_type = zipfile.ZIP_DEFLATED
            target.writestr(entry, content)


def infer(model: tf.keras.Model, inputs: np.ndarray) -> np.ndarray:
    """Logits (n, 12)."""
    return model({"spectrogram": inputs}, training=False)["logits"].numpy()


def write_samples(files: list[bytes], labels: np.ndarray, folder: Path) -> None:
    """Recordings for devices: WAV files and `labels.csv`."""
    folder.mkdir(parents=True, exist_ok=True)
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(["file", "label"])
    for number, (content, label) in enumerate(zip(files, labels, strict=True)):
        name = f"word-{number:02}.wav"
        (folder / name).write_bytes(content)
        writer.writerow([name, label])
    (folder / "labels.csv").write_text(table.getvalue())


def main() -> None:
    """Train, save, write every data set, and print the accuracies."""
    tf.config.threading.set_intra_op_parallelism_threads(2)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    files, labels = clips("train", 9000, seed=1)
    model = train(tensors_of(files), labels)
    path = MANIFESTS / "models" / "keywords-1.0.0.keras"
    save(model, path)
    model = tf.keras.models.load_model(path)
    folder = MANIFESTS / "data" / "keywords" / "1.0.0"
    inputs = tensors_of(clips("test", 4, seed=2)[0])
    write_npz(folder / "golden.npz", spectrogram=inputs, logits=infer(model, inputs))
    write_npz(folder / "calibration.npz", spectrogram=tensors_of(clips("train", 120, seed=3)[0]))
    files, labels = clips("test", 600, seed=4)
    inputs = tensors_of(files)
    write_npz(folder / "evaluation.npz", spectrogram=inputs, label=labels)
    correct = infer(model, inputs).argmax(axis=1) == labels
    print(f"accuracy {correct.mean():.4f} on {len(correct)} recordings of unheard voices")
    for label, name in enumerate(LABELS):
        print(f"  {name}: {correct[labels == label].mean():.3f}")
    files, labels = clips("test", 24, seed=5)
    write_samples(files, labels, MANIFESTS / "samples" / "keywords")


if __name__ == "__main__":
    main()
