"""Trains the diabetes model and writes its data sets.

    pip install xgboost-cpu==3.2.0 scikit-learn==1.9.1
    python manifests/training/train_diabetes.py

442 real patients of scikit-learn's `load_diabetes` (Efron, Hastie, Johnstone and Tibshirani, "Least
Angle Regression", 2004), in the units that a clinic measures, cut once into parts that share no
row: golden 4, calibration 60, evaluation 120, training 258. Saved as JSON: it holds numbers alone,
where a pickle would run whatever code is in it.
"""

from pathlib import Path

import numpy as np
import xgboost
from dataset import write_npz
from sklearn.datasets import load_diabetes

MANIFESTS = Path(__file__).resolve().parent.parent
PARTS = {"golden": 4, "calibration": 60, "evaluation": 120}
PARAMS = {
    "objective": "reg:squarederror",
    "max_depth": 2,
    "learning_rate": 0.05,
    "min_child_weight": 5,
    "subsample": 0.7,
    "colsample_bytree": 0.5,
    "seed": 0,
    "nthread": 1,
}
ROUNDS = 120


def main() -> None:
    """Train, save, write every data set, and print the mean absolute error."""
    table, progression = load_diabetes(return_X_y=True, scaled=False)
    features, progression = table.astype(np.float32), progression.astype(np.float32)
    order = np.random.default_rng(0).permutation(len(features))
    *cut, train = np.split(order, np.cumsum(list(PARTS.values())))
    parts = dict(zip(PARTS, cut, strict=True))
    model = xgboost.train(PARAMS, xgboost.DMatrix(features[train], progression[train]), ROUNDS)
    model.save_model(MANIFESTS / "models" / "diabetes-1.0.0.json")
    answers = {part: model.predict(xgboost.DMatrix(features[rows])) for part, rows in parts.items()}
    folder = MANIFESTS / "data" / "diabetes" / "1.0.0"
    write_npz(folder / "calibration.npz", features=features[parts["calibration"]])
    write_npz(
        folder / "evaluation.npz",
        features=features[parts["evaluation"]],
        label=progression[parts["evaluation"]],
    )
    write_npz(
        folder / "golden.npz",
        features=features[parts["golden"]],
        progression=answers["golden"][:, None],
    )
    wanted = progression[parts["evaluation"]]
    error = np.abs(answers["evaluation"] - wanted).mean()
    constant = np.abs(np.median(progression[train]) - wanted).mean()
    print(f"mean absolute error {error:.2f} on {len(wanted)} patients it has not seen")
    print(f"  ({constant:.2f} by the median of the others)")


if __name__ == "__main__":
    main()
