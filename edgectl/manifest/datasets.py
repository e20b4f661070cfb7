"""The data of a `Model`: what it is calibrated on, measured on, and checked by on a device."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from edgectl.manifest.base import Element, Fault, Fraction, RelativePath, Sha256, Text, form

if TYPE_CHECKING:
    from collections.abc import Iterator

MetricName = Annotated[
    str, form(r"^[a-z][a-z0-9_]*(@[0-9]+)?$", "a metric such as accuracy, mae or map50")
]


class Calibration(Element):
    """Real inputs that the ranges of int8 activations are taken from."""

    path: RelativePath = Field(
        description="`.npz` with one array per input.", examples=["calibration.npz"]
    )
    sha256: Sha256 | None = Field(
        default=None,
        description="Digest of the file. Anything else is refused.",
        examples=["9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"],
    )
    method: Literal["minmax", "entropy", "percentile"] = Field(
        default="minmax", description="How ranges are taken.", examples=["entropy"]
    )
    percentile: float | None = Field(
        default=None,
        gt=50,
        le=100,
        description="Share of values inside the range, in percent; with `method: percentile`.",
        examples=[99.99],
    )

    def faults(self) -> Iterator[Fault]:
        """A percentile that another method would ignore."""
        if self.percentile is not None and self.method != "percentile":
            yield Fault(f"has no meaning with method {self.method}", ("percentile",))


class OwnMetric(Element):
    """A metric of your own: a function of a Python file, run where models are evaluated."""

    path: RelativePath = Field(description="The Python file.", examples=["metrics.py"])
    function: Annotated[str, form(r"^[A-Za-z_][A-Za-z0-9_]*$", "the name of a function")] = Field(
        description="`function(labels, outputs, inputs)`, of arrays with the rows first, gives the "
        "metric.",
        examples=["word_error_rate"],
    )
    sha256: Sha256 | None = Field(
        default=None,
        description="Digest of the file. Anything else is refused.",
        examples=["9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"],
    )


class Evaluation(Element):
    """Labelled data, apart from the calibration data, that quality is measured on."""

    path: RelativePath = Field(
        description="`.npz` with one array per input and one of labels.",
        examples=["evaluation.npz"],
    )
    sha256: Sha256 | None = Field(
        default=None,
        description="Digest of the file. Anything else is refused.",
        examples=["9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"],
    )
    labels: Text = Field(
        default="label",
        description="Name of the array of labels; of a detector's classes, with `boxes` beside it.",
        examples=["label"],
    )
    metrics: dict[MetricName, OwnMetric] = Field(
        default_factory=dict,
        description="Metrics of your own, by name, beside those of the task.",
        examples=[{"wer": {"path": "metrics.py", "function": "word_error_rate"}}],
    )


class Tolerance(Element):
    """How far a device's outputs may be from the golden ones."""

    absolute: float = Field(
        default=0.05, ge=0, description="Absolute part, as `numpy.allclose` has it.", examples=[0.5]
    )
    relative: float = Field(
        default=0.05, ge=0, description="Relative part, as `numpy.allclose` has it.", examples=[0.1]
    )
    top1: Fraction = Field(
        default=1.0,
        description="Least share of rows whose largest element is at the same place.",
        examples=[1.0],
    )


class Golden(Element):
    """Inputs with their right outputs: a device runs them before a model gets traffic."""

    path: RelativePath = Field(
        description="`.npz` with one array per input and per output.", examples=["golden.npz"]
    )
    sha256: Sha256 | None = Field(
        default=None,
        description="Digest of the file. Anything else is refused.",
        examples=["9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"],
    )
    tolerance: Tolerance = Field(
        default_factory=Tolerance,
        description="How far outputs may be off.",
        examples=[{"absolute": 0.5}],
    )
