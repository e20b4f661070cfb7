"""Metrics of tasks beyond classes, against what is computed by hand or brute force."""

from __future__ import annotations

import time
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edgectl.engine import metrics
from edgectl.engine.detection_metrics import iou, mean_average_precision
from edgectl.engine.energy import EnergyMeter
from edgectl.engine.errors import InputError
from edgectl.engine.scoring import Answers, score
from edgectl.engine.signature import TensorSpec
from edgectl.engine.tasks import METRICS
from edgectl.engine.transforms import Detections

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

SQUARE = (0.0, 0.0, 10.0, 10.0)


def found(*boxes: tuple[float, ...], scores: tuple[float, ...], label: int = 0) -> Detections:
    return Detections(
        np.array(boxes, np.float32).reshape(-1, 4),
        np.array(scores, np.float32),
        np.full(len(boxes), label, np.int64),
    )


def truth(*boxes: tuple[float, ...]) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    return np.array([boxes], np.float32), np.zeros((1, len(boxes)), np.int64)


def test_overlap_of_two_boxes() -> None:
    overlap = iou(np.array([SQUARE]), np.array([SQUARE, (5, 0, 15, 10), (20, 20, 30, 30)]))
    assert overlap.tolist() == [[1.0, pytest.approx(1 / 3), 0.0]]


def test_all_found_is_one_and_nothing_found_is_zero() -> None:
    boxes, classes = truth(SQUARE, (20, 20, 30, 30))
    every = found(SQUARE, (20, 20, 30, 30), scores=(0.9, 0.8))
    assert mean_average_precision([every], boxes, classes) == {"map50": 1.0, "map": 1.0}
    nothing = found(scores=())
    assert mean_average_precision([nothing], boxes, classes) == {"map50": 0.0, "map": 0.0}


def test_a_false_alarm_before_the_right_box_halves_the_precision() -> None:
    boxes, classes = truth(SQUARE)
    alarm = found((40, 40, 50, 50), SQUARE, scores=(0.9, 0.8))
    assert mean_average_precision([alarm], boxes, classes)["map50"] == pytest.approx(0.5)
    late = found(SQUARE, (40, 40, 50, 50), scores=(0.9, 0.8))
    assert mean_average_precision([late], boxes, classes)["map50"] == 1.0


def test_one_of_two_found_reaches_half_of_the_recalls() -> None:
    boxes, classes = truth(SQUARE, (20, 20, 30, 30))
    # COCO samples 101 recalls: 0.00 to 0.50 are reached, 51 of them.
    value = mean_average_precision([found(SQUARE, scores=(0.9,))], boxes, classes)["map50"]
    assert value == pytest.approx(51 / 101)


def test_a_box_found_twice_counts_once() -> None:
    boxes, classes = truth(SQUARE, (20, 20, 30, 30))
    twice = found(SQUARE, SQUARE, (20, 20, 30, 30), scores=(0.9, 0.8, 0.7))
    value = mean_average_precision([twice], boxes, classes)["map50"]
    assert value == pytest.approx((51 + 50 * 2 / 3) / 101)


def test_a_loose_box_counts_at_the_overlaps_that_it_reaches() -> None:
    boxes, classes = truth(SQUARE)
    loose = found((0, 0, 10, 8), scores=(0.9,))  # 0.8, a rounding error above or below 0.80
    result = mean_average_precision([loose], boxes, classes)
    assert result["map50"] == 1.0
    assert result["map"] in (
        pytest.approx(0.6),
        pytest.approx(0.7),
    )


def test_padding_and_other_classes_are_no_truth() -> None:
    boxes = np.array([[SQUARE, (-1, -1, -1, -1)]], np.float32)
    classes = np.array([[1, -1]])
    right = found(SQUARE, scores=(0.9,), label=1)
    wrong = found(SQUARE, scores=(0.9,), label=0)
    assert mean_average_precision([right], boxes, classes)["map50"] == 1.0
    assert mean_average_precision([wrong], boxes, classes)["map50"] == 0.0
    assert mean_average_precision([right], boxes, np.array([[-1, -1]]))["map50"] == 0.0


@given(
    hnp.arrays(np.float64, (6, 15), elements=st.integers(0, 8).map(float)),
    hnp.arrays(np.int64, 6, elements=st.integers(0, 14)),
)
def test_ranks_are_those_of_sorting(scores: NDArray[np.float64], wanted: NDArray[np.int64]) -> None:
    ranks = []
    for row, right in zip(scores, wanted, strict=True):
        others = sorted(np.delete(row, right), reverse=True)
        ranks.append(1 + sum(other >= row[right] for other in others))
    result = metrics.ranking(wanted, scores)
    assert result["mrr"] == pytest.approx(np.mean([1 / rank for rank in ranks]))
    assert result["hit_rate@10"] == pytest.approx(np.mean([rank <= 10 for rank in ranks]))
    gains = [1 / np.log2(rank + 1) if rank <= 10 else 0 for rank in ranks]
    assert result["ndcg@10"] == pytest.approx(np.mean(gains))


@given(
    hnp.arrays(np.float64, 12, elements=st.integers(0, 5).map(float)),
    hnp.arrays(np.int64, 12, elements=st.integers(0, 1)),
)
def test_the_best_f1_is_that_of_the_best_threshold(
    scores: NDArray[np.float64], labels: NDArray[np.int64]
) -> None:
    best = max(
        metrics.f1(labels, (scores >= threshold).astype(np.int64), 2) for threshold in scores
    )
    assert metrics.best_f1(labels, scores) == pytest.approx(best)


def test_segmentation_ignores_what_does_not_count() -> None:
    scores = np.zeros((1, 2, 1, 4))
    scores[0, 1, 0, 2:] = 1
    wanted = np.array([[[0, 1, 1, -1]]])
    result = metrics.segmentation(wanted, scores)
    assert result["accuracy"] == pytest.approx(2 / 3)
    assert result["miou"] == pytest.approx(0.5)


def answers(task_labels: NDArray[Any], outputs: NDArray[np.float32], **spec: Any) -> Answers:
    rows = len(task_labels)
    x = np.zeros((rows, 2), np.float32)
    output = TensorSpec("y", "FP32", outputs.shape, **spec)
    arrays: dict[str, NDArray[Any]] = {"x": x, "label": task_labels}
    return Answers(arrays, "label", [TensorSpec("x", "FP32", (-1, 2))], [output], {"y": outputs})


def test_anomalies_are_held_against_the_error_of_reconstruction() -> None:
    given_back = np.array([[0.1, 0], [0, 0], [2, 2], [0, 3]], np.float32)
    labels = np.array([0, 0, 1, 1])
    transforms: tuple[dict[str, Any], ...] = ({"reconstruction_error": {}},)
    assert score("anomaly-detection", answers(labels, given_back, transforms=transforms)) == {
        "auc": 1.0,
        "f1": 1.0,
    }
    with pytest.raises(InputError, match="both must occur"):
        score("anomaly-detection", answers(labels * 0, given_back, transforms=transforms))


def test_every_task_is_known_and_names_what_it_gives() -> None:
    assert score("embedding", answers(np.zeros(2), np.zeros((2, 3), np.float32))) == {}
    found = score("recommendation", answers(np.array([0, 1]), np.eye(2, dtype=np.float32)))
    assert set(found) == set(METRICS["recommendation"])
    with pytest.raises(InputError, match="'poetry' has no metrics"):
        score("poetry", answers(np.zeros(2), np.zeros((2, 3), np.float32)))


def test_a_detector_needs_boxes_beside_its_classes() -> None:
    with pytest.raises(InputError, match="has an array 'boxes'"):
        score("detection", answers(np.zeros((2, 3)), np.zeros((2, 3, 6), np.float32)))


def test_energy_is_the_advance_of_the_counters_that_may_start_again(tmp_path: Path) -> None:
    for number, (before, after) in enumerate(((10, 2_000_010), (9_000_000, 500_000))):
        counter = tmp_path / "class/powercap" / f"intel-rapl:{number}"
        counter.mkdir(parents=True)
        (counter / "max_energy_range_uj").write_text("10000000")
        (counter / "energy_uj").write_text(str(before))
        (counter / "after").write_text(str(after))
    with EnergyMeter(tmp_path) as meter:
        for counter in (tmp_path / "class/powercap").iterdir():
            (counter / "after").replace(counter / "energy_uj")
    assert meter.source == "rapl"
    assert meter.joules == pytest.approx(2.0 + 1.5)


def test_a_power_monitor_is_added_up_over_time(tmp_path: Path) -> None:
    for number, name in enumerate(("ina219", "coretemp")):
        monitor = tmp_path / "class/hwmon" / f"hwmon{number}"
        monitor.mkdir(parents=True)
        (monitor / "name").write_text(f"{name}\n")
        (monitor / "power1_input").write_text("5000000")
    with EnergyMeter(tmp_path) as meter:
        pass
    assert meter.source == "ina"
    assert meter.joules is not None
    assert 0 <= meter.joules < 5


def jetson(root: Path, number: int, *channels: tuple[str, int, int]) -> Path:
    """An ina3221 as Linux shows it: label, millivolts and milliamperes, and never a power."""
    monitor = root / "class/hwmon" / f"hwmon{number}"
    monitor.mkdir(parents=True)
    (monitor / "name").write_text("ina3221\n")
    for place, (label, voltage, current) in enumerate(channels, start=1):
        (monitor / f"in{place}_label").write_text(f"{label}\n")
        (monitor / f"in{place}_input").write_text(f"{voltage}\n")
        (monitor / f"curr{place}_input").write_text(f"{current}\n")
    return monitor


def power(root: Path) -> float:
    """Watts, by the energy of a tenth of a second."""
    start = time.monotonic()
    with EnergyMeter(root) as meter:
        time.sleep(0.1)
    assert meter.source == "ina"
    assert meter.joules is not None
    return meter.joules / (time.monotonic() - start)


def test_the_input_of_a_jetson_is_voltage_times_current(tmp_path: Path) -> None:
    jetson(tmp_path, 0, ("VDD_IN", 5000, 1600), ("VDD_CPU_GPU_CV", 5000, 800), ("VDD_SOC", 5000, 1))
    assert power(tmp_path) == pytest.approx(8.0, rel=0.2)


def test_the_rails_of_a_jetson_without_an_input_are_added(tmp_path: Path) -> None:
    jetson(tmp_path, 0, ("VDD_GPU_SOC", 10_000, 500), ("VDD_CPU_CV", 10_000, 200))
    jetson(tmp_path, 1, ("NC", 10_000, 9000), ("VDDQ", 1000, 1000))
    assert power(tmp_path) == pytest.approx(8.0, rel=0.2)


def test_energy_of_which_a_part_is_missing_is_none(tmp_path: Path) -> None:
    monitor = jetson(tmp_path, 0, ("VDD_IN", 5000, 1000))
    with EnergyMeter(tmp_path) as meter:
        (monitor / "curr1_input").unlink()
    assert meter.joules is None


def test_labels_that_are_no_numbers_are_said_to_be_so() -> None:
    wanted = np.array([1.0, np.nan])
    with pytest.raises(InputError, match="labels 'label' hold NaN"):
        score("regression", answers(wanted, np.zeros((2, 1), np.float32)))


def test_a_machine_that_says_nothing_gives_no_energy(tmp_path: Path) -> None:
    with EnergyMeter(tmp_path) as meter:
        pass
    assert meter.joules is None


def test_overlaps_are_those_of_coco() -> None:
    from edgectl.engine.detection_metrics import OVERLAPS

    assert len(OVERLAPS) == 10
    assert all(after - before == pytest.approx(0.05) for before, after in pairwise(OVERLAPS))
