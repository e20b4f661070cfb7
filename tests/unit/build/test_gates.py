from __future__ import annotations

from typing import Any

import pytest

from edgectl.build.gates import require, violations
from edgectl.errors import GateError

LEFT = {"left": "device warm-up"}


def report(accuracy: float = 0.97, **fields: Any) -> dict[str, Any]:
    return {"metrics": {"accuracy": accuracy}, "sizeBytes": 1000, "latency": LEFT, **fields}


def found(made: dict[str, Any], **options: Any) -> list[str]:
    options = {"gates": {}, "limits": {}, "baseline": {"accuracy": 0.98}} | options
    return [str(violation) for violation in violations(made, **options)]


def test_what_is_allowed_passes() -> None:
    gates = {"accuracy": {"min": 0.97, "maxDrop": 0.02}}
    limits = {"modelSize": 1000, "latency": 0.02, "peakMemory": 100}
    assert found(report(), gates=gates, limits=limits) == []


def test_a_metric_below_its_least_value() -> None:
    assert found(report(0.94), gates={"accuracy": {"min": 0.95}}) == [
        "accuracy is 0.9400, allowed is at least 0.9500"
    ]


def test_a_drop_against_the_imported_model() -> None:
    assert found(report(0.95), gates={"accuracy": {"maxDrop": 0.02}}) == [
        "drop of accuracy is 0.0300 (from 0.9800 to 0.9500), allowed is at most 0.0200"
    ]


def test_a_drop_of_exactly_what_is_allowed_passes() -> None:
    assert found(report(0.96), gates={"accuracy": {"maxDrop": 0.02}}) == []


def test_a_gate_on_what_nobody_measured_does_not_pass() -> None:
    assert found(report(), gates={"f1": {"min": 0.1}}) == [
        "f1 is not measured, allowed is a metric of the task"
    ]
    assert found(report(), gates={"accuracy": {"maxDrop": 0.1}}, baseline=None) == [
        "drop of accuracy is not measured, allowed is at most 0.1000"
    ]


def test_a_metric_that_is_not_a_number_does_not_pass() -> None:
    gates = {"accuracy": {"min": 0.1, "maxDrop": 0.9}}
    assert len(found(report(float("nan")), gates=gates)) == 2


@pytest.mark.parametrize(
    ("fields", "limits", "message"),
    [
        ({"sizeBytes": 2048}, {"modelSize": 1024}, "model size is 2.0 KiB"),
        ({"latency": {"p99": 0.03}}, {"latency": 0.02}, "p99 latency is 30.0 ms"),
        ({"peakMemoryBytes": 2048}, {"peakMemory": 1024}, "peak memory is 2.0 KiB"),
        (
            {"energy": {"joules": 0.3, "source": "rapl"}, "latency": {"p50": 0.02, "p99": 0.03}},
            {"power": 10.0},
            "power is 15.0 W, allowed is at most 10 W",
        ),
    ],
)
def test_limits_of_the_target(
    fields: dict[str, Any], limits: dict[str, float], message: str
) -> None:
    (only,) = found(report(**fields), limits=limits)
    assert only.startswith(message)


def test_a_latency_left_to_the_device_is_not_judged() -> None:
    assert found(report(), limits={"latency": 1e-9, "peakMemory": 1}) == []


def test_an_estimate_of_energy_is_not_judged() -> None:
    energy = {"joules": 0.3, "source": "estimate"}
    measured = report(energy=energy, latency={"p50": 0.02, "p99": 0.03})
    assert found(measured, limits={"power": 10.0}) == []


GOLDEN = {"problems": ["output 'a' is missing", "output 'b' holds NaN or infinite values"]}


def test_each_problem_with_the_golden_data_is_one_refusal() -> None:
    assert found(report(golden=GOLDEN)) == [
        "golden data: output 'a' is missing",
        "golden data: output 'b' holds NaN or infinite values",
    ]
    assert found(report(golden={"problems": []})) == []


def test_a_golden_problem_stops_a_variant_with_its_own_remedy() -> None:
    made = report(0.5, golden=GOLDEN)
    with pytest.raises(GateError) as caught:
        require("digits 1.0.0 for pi", violations(made, gates={}, limits={}))
    assert "output 'a' is missing; golden data: output 'b'" in caught.value.message
    assert "spec.golden.tolerance" in str(caught.value.hint)
    assert "spec.gates" not in str(caught.value.hint)

    both = violations(made, gates={"accuracy": {"min": 0.9}}, limits={})
    with pytest.raises(GateError) as caught:
        require("digits 1.0.0 for pi", both)
    assert "spec.gates" in str(caught.value.hint)
    assert "spec.golden.tolerance" in str(caught.value.hint)


def test_every_violation_is_in_the_error() -> None:
    bad = violations(
        report(0.5), gates={"accuracy": {"min": 0.9}}, limits={"modelSize": 1}, baseline=None
    )
    with pytest.raises(GateError) as caught:
        require("digits 1.0.0 for pi", bad)
    assert caught.value.message.startswith("digits 1.0.0 for pi: accuracy is 0.5000")
    assert "model size" in caught.value.message
    require("digits 1.0.0 for pi", ())
