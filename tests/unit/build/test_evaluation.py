from __future__ import annotations

import json
from typing import Any

import pytest

from edgectl.build.evaluation import LEFT_TO_DEVICE, report_for


def raw(architecture: str) -> dict[str, Any]:
    return {
        "metrics": {"accuracy": 0.97},
        "samples": 360,
        "sizeBytes": 16551,
        "host": {
            "architecture": architecture,
            "cpu": "Build Host 9000",
            "engine": "onnxruntime 1.31.1",
            "providers": ["CPUExecutionProvider"],
        },
        "measured": {
            "latency": {"p50": 0.00123, "p99": 0.00456, "runs": 100, "threads": 1, "batch": 1},
            "loadSeconds": 0.789,
            "peakMemoryBytes": 59_408_384,
        },
    }


def report(host: str, target: str) -> dict[str, Any]:
    return report_for(raw(host), target="t", architecture=target, precision="int8")


@pytest.mark.parametrize("architecture", ["amd64", "arm64"])
def test_a_latency_is_kept_on_the_architecture_it_was_measured_on(architecture: str) -> None:
    made = report(architecture, architecture)
    assert made["latency"]["p99"] == 0.00456
    assert made["peakMemoryBytes"] == 59_408_384
    assert made["measuredOn"] == {"architecture": architecture, "cpu": "Build Host 9000"}


@pytest.mark.parametrize(("host", "target"), [("amd64", "arm64"), ("arm64", "amd64")])
def test_elsewhere_no_figure_of_the_host_is_left(host: str, target: str) -> None:
    made = report(host, target)
    assert made["latency"] == {"left": "device warm-up"}
    text = json.dumps(made)
    for figure in ("0.00123", "0.00456", "0.789", "59408384", "Build Host 9000"):
        assert figure not in text
    assert made["metrics"] == {"accuracy": 0.97}
    assert made["sizeBytes"] == 16551


def test_what_was_not_measured_is_left_to_the_device() -> None:
    unmeasured = {key: value for key, value in raw("amd64").items() if key != "measured"}
    made = report_for(unmeasured, target="t", architecture="amd64", precision="fp32")
    assert made["latency"] == LEFT_TO_DEVICE


@pytest.mark.parametrize("architecture", ["amd64", "arm64"])
def test_answers_to_golden_data_are_said_of_every_target(architecture: str) -> None:
    problem = "output 'logits' is missing"
    golden = raw("amd64") | {"golden": {"problems": [problem]}}
    made = report_for(golden, target="t", architecture=architecture, precision="int8")
    assert made["golden"] == {"problems": [problem]}
    assert "golden" not in report("amd64", architecture)
