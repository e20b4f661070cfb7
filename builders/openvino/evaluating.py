"""The evaluate action."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import openvino as ov

import ir
from edgectl.build.kit import evaluating

if TYPE_CHECKING:
    from edgectl.build.protocol import Done, Task


def evaluate(task: Task) -> Done:
    """Measure a model by OpenVINO; see `edgectl.build.kit.evaluating`. What comes as an IR is
    evaluated as it came, so the file is checked here too before OpenVINO reads it.

    For a GPU or NPU that this machine lacks the metrics are those of the CPU, which runs the same
    file, and nothing is timed: the report names the CPU as the device (`host.providers`).
    """
    ir.check(*ir.find_files(task.inputs["model"]))
    device = str(task.params.get("device") or "CPU")
    here = {name.partition(".")[0] for name in ov.Core().available_devices}
    wanted = {name.partition(".")[0] for name in device.removeprefix("AUTO:").split(",")}
    if device != "AUTO" and not wanted <= here:
        params = {**task.params, "device": "CPU", "latency": False}
        task = dataclasses.replace(task, params=params)
    return evaluating.evaluate(task)
