"""Trains the tumour model and writes its data sets.

    pip install scikit-learn==1.9.1 skops
    python manifests/training/train_tumour.py

569 real biopsies of scikit-learn's `load_breast_cancer` (UCI, "Breast Cancer Wisconsin
(Diagnostic)"), cut once into parts that share no row: golden 4, calibration 80, evaluation 140,
training 345. Saved by skops and not by pickle: loading a pickle runs whatever code is in it.
"""

import io
import re
import zipfile
from pathlib import Path

import numpy as np
import skops.io
from dataset import write_npz
from sklearn.datasets import load_breast_cancer
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

MANIFESTS = Path(__file__).resolve().parent.parent
PARTS = {"golden": 4, "calibration": 80, "evaluation": 140}
_ADDRESS = re.compile(r'(?<="__id__": )\d+|(?<=")\d+(?=\.npy")')


def save(pipeline: object, path: Path) -> None:
    """A .skops file that is the same every time.

    skops names objects and members by their address in memory and lets ZIP stamp the clock; here
    they are numbered in order of appearance.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(io.BytesIO(skops.io.dumps(pipeline))) as source:
        schema = source.read("schema.json").decode()
        addresses = dict.fromkeys(_ADDRESS.findall(schema))
        numbers = {address: str(number) for number, address in enumerate(addresses)}
        members = {
            f"{numbers[Path(name).stem]}.npy": source.read(name)
            for name in source.namelist()
            if name != "schema.json"
        }
    members["schema.json"] = _ADDRESS.sub(lambda match: numbers[match[0]], schema).encode()
    with zipfile.ZipFile(path, "w") as target:
        for name in sorted(members):
            entry = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
            entry.compress_type = zipfile.ZIP_DEFLATED
            target.writestr(entry, members[name])


def main() -> None:
    """Train, save, write every data set, and print the accuracy."""
    data = load_breast_cancer()
    features, labels = data.data.astype(np.float32), data.target.astype(np.int64)
    order = np.random.default_rng(0).permutation(len(labels))
    parts, start = {}, 0
    for name, size in PARTS.items():
        parts[name] = order[start : start + size]
        start += size
    train = order[start:]
    pipeline = make_pipeline(
        StandardScaler(),
        MLPClassifier((16,), solver="lbfgs", alpha=10.0, max_iter=2000, random_state=0),
    ).fit(features[train], labels[train])
    save(pipeline, MANIFESTS / "models" / "tumour-1.0.0.skops")
    folder = MANIFESTS / "data" / "tumour" / "1.0.0"
    chosen = {name: features[rows] for name, rows in parts.items()}
    write_npz(folder / "calibration.npz", features=chosen["calibration"])
    write_npz(
        folder / "evaluation.npz", features=chosen["evaluation"], label=labels[parts["evaluation"]]
    )
    write_npz(
        folder / "golden.npz",
        features=chosen["golden"],
        probabilities=pipeline.predict_proba(chosen["golden"]).astype(np.float32),
    )
    correct = pipeline.predict(chosen["evaluation"]) == labels[parts["evaluation"]]
    print(f"accuracy {correct.mean():.4f} on {len(correct)} rows it has not seen")


if __name__ == "__main__":
    main()
