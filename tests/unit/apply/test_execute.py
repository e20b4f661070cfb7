"""What a step is asked for on the machine that runs it."""

from __future__ import annotations

from edgectl.apply.execute import _as_here
from edgectl.engine.host import host_architecture
from edgectl.plan.step import StepKind, make_step


def test_a_time_is_measured_on_the_targets_architecture_and_on_the_cores_that_are_here() -> None:
    here = {"architecture": host_architecture(), "threads": 12}
    for kind, params, asked in (
        (StepKind.EVALUATE, here, here | {"threads": 2}),
        (StepKind.EVALUATE, here | {"threads": 1}, here | {"threads": 1}),
        (
            StepKind.EVALUATE,
            {"architecture": "xtensa"},
            {"architecture": "xtensa", "latency": False},
        ),
        (StepKind.COMPILE, {"architecture": "xtensa"}, {"architecture": "xtensa"}),
    ):
        step = make_step(kind, "a step", "models/digits", params=params)
        assert _as_here(step, 2) == asked
        assert step.params == params
