"""What is measured of a model, by its task: names alone, so that manifests are checked with them.

`edgectl.engine.scoring` computes them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

COSINE = "cosine"
"""Mean cosine similarity of the outputs to the golden ones: of every task."""

METRICS: Mapping[str, tuple[str, ...]] = {
    "classification": ("accuracy", "f1", "auc", "top3", "top5"),
    "regression": ("mae", "rmse", "r2"),
    "forecasting": ("mae", "rmse", "r2"),
    "detection": ("map50", "map"),
    "segmentation": ("miou", "accuracy"),
    "anomaly-detection": ("auc", "f1"),
    "embedding": (),
    "recommendation": ("hit_rate@10", "ndcg@10", "mrr"),
    "transcription": (),
    "generation": (),
}
"""Task to its metrics. Some need more than others: `auc` two classes, `top5` six or more."""

UNBOUNDED = ("mae", "rmse", "r2")
"""Metrics that are no share from 0 to 1."""


def main_metric(measured: Collection[str]) -> str | None:
    """The one of several metrics that says most; None if there are none."""
    first = (names[0] for names in METRICS.values() if names)
    return next((name for name in (*first, *sorted(measured)) if name in measured), None)


def metrics_of(task: str) -> tuple[str, ...]:
    """Every metric that a gate on a model of this task can name."""
    return (*METRICS.get(task, ()), COSINE)
