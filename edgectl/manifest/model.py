"""`Model`: one version of a model, what it takes and gives, and how its quality is held."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field, WithJsonSchema
from pydantic.alias_generators import to_camel

from edgectl.engine.signature import ModelSignature, TensorSpec
from edgectl.engine.tasks import UNBOUNDED, metrics_of
from edgectl.engine.transforms import canonical
from edgectl.manifest.base import (
    Element,
    Fault,
    Fraction,
    Lax,
    Manifest,
    RelativePath,
    Sha256,
    Text,
    form,
)
from edgectl.manifest.datasets import Calibration, Evaluation, Golden, MetricName
from edgectl.manifest.problem import suggest

if TYPE_CHECKING:
    from collections.abc import Iterator

Format = Annotated[
    str,
    form(
        r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?$",
        "lowercase letters, digits and '-', such as onnx",
        max_length=40,
    ),
]
"""A name that a builder has for what it reads: which there are is not said here."""
Task = Literal[
    "classification", "regression", "detection", "segmentation", "embedding", "anomaly-detection",
    "forecasting", "recommendation", "transcription", "generation",
]  # fmt: skip
Datatype = Literal[
    "BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64",
    "FP16", "FP32", "FP64", "BYTES",
]  # fmt: skip
Precision = Literal["fp32", "fp16", "bf16", "int8", "int4", "source"]

Version = Annotated[
    str,
    form(
        r"^[0-9]+(\.[0-9]+){0,2}(-[0-9A-Za-z]+([.-][0-9A-Za-z]+)*)?$",
        "a version such as 1.0.0 or 1.0.0-rc.1, without '+', which an OCI tag cannot have",
        max_length=128,
    ),
]
"""`1.0.0` or `1.0.0-rc.1`: semantic versioning as far as an OCI tag can say it (no `+build`)."""


AS_IT_IS: Precision = "source"
"""The precision of a variant that is the source itself."""
COMPILED = ("coreml", "tensorrt")
"""Formats that nothing is made of: what they are is what runs."""


def version_order(version: str) -> tuple[Any, ...]:
    """A sort key in which newer is greater (semver.org, item 11): a release beats its
    pre-releases, numbers count as numbers and come before words."""
    release, _, pre = version.partition("-")
    numbers = tuple(int(part) for part in release.split("."))
    padded = numbers + (0,) * (3 - len(numbers))
    words = tuple(
        (0, int(part), "") if part.isdigit() else (1, 0, part)
        for part in re.split(r"[.]", pre)
        if part
    )
    return (padded, not words, words, version) if words else (padded, True, (), version)


def _transform(value: object) -> object:
    """A transform without parameters may be written as its name alone."""
    if isinstance(value, str):
        return {value: {}}
    if not isinstance(value, dict):
        raise ValueError("must be a transform's name, or a mapping of it to parameters")  # noqa: TRY004
    if len(value) != 1:
        names = ", ".join(str(key) for key in list(value)[:4])
        raise ValueError(
            f"must have one key, the transform's name; this has {len(value)}: {names}"
            if value
            else "must have one key, the transform's name"
        )
    return value


Transform = Annotated[
    dict[str, Any],
    BeforeValidator(_transform),
    WithJsonSchema(
        {
            "title": "transform",
            "anyOf": [
                {"type": "string"},
                {"type": "object", "minProperties": 1, "maxProperties": 1},
            ],
            "examples": ["softmax", {"topk": {"k": 3}}],
        }
    ),
]

AssetName = Annotated[
    str, form(r"^[A-Za-z0-9][A-Za-z0-9._-]*$", "a file name without a directory", max_length=100)
]

Dimension = Annotated[int, Field(ge=-1, json_schema_extra={"not": {"const": 0}})]


_URL = form(
    r"^https://([A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?/\S*$",
    "an https:// address of a host and a file",
)
_PINNED = form(r"^\S+@sha256:[0-9a-f]{64}$", "a reference with its digest, REPOSITORY@sha256:HEX")


class Source(Element):
    """Where the trained model is: exactly one of `path`, `url` and `oci`."""

    format: Format = Field(
        description="What the file or directory is: a format that a builder reads. Those that come "
        "with edgectl read coreml, huggingface, onnx, openvino, pytorch, sklearn, tensorflow, "
        "tensorrt, tflite and xgboost; one in the project's `builders/` adds its own.",
        examples=["onnx"],
    )
    path: RelativePath | None = Field(
        default=None,
        description="File or directory, relative to this manifest, inside the project.",
        examples=["digits-1.0.0.onnx"],
    )
    url: Annotated[str, _URL] | None = Field(
        default=None,
        description="HTTPS address of the file; needs `sha256`.",
        examples=["https://models.example.com/digits-1.0.0.onnx"],
    )
    oci: Annotated[str, _PINNED] | None = Field(
        default=None,
        description="Artifact in an OCI registry, pinned by digest.",
        examples=["registry.example.com/models/digits@sha256:" + "0" * 64],
    )
    sha256: Sha256 | None = Field(
        default=None,
        description="Digest of the file; of a directory, of the canonical JSON of its files' "
        "digests by path. Anything else is refused.",
        examples=["9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"],
    )
    trust_code: bool = Field(
        default=False,
        description="Whether code inside the model may run while it is imported, such as a "
        "pickle's, or Python functions of a TensorFlow graph. Never of a model from others.",
        examples=[False],
    )

    def faults(self) -> Iterator[Fault]:
        """Not exactly one place; an address without a digest."""
        given = [name for name in ("path", "url", "oci") if getattr(self, name) is not None]
        if len(given) != 1:
            found = " and ".join(given) or "none of them"
            yield Fault(f"needs exactly one of path, url and oci; it has {found}")
        if self.url is not None and self.sha256 is None:
            yield Fault("a url needs sha256, so that what is fetched is what was meant", ("url",))
        if self.url is not None and not _is_address(self.url):
            yield Fault("names an address or a port that cannot be", ("url",))


def _is_address(url: str) -> bool:
    """Whether host and port of a URL can be asked for."""
    try:
        return urlsplit(url).port != 0
    except ValueError:
        return False


class Tensor(Element):
    """What inputs and outputs share."""

    name: Text = Field(description="The tensor's name in the model.", examples=["image"])
    datatype: Datatype = Field(
        description="Element type, in the Open Inference Protocol's names.", examples=["FP32"]
    )
    shape: Annotated[tuple[Dimension, ...], Lax] = Field(
        description="Size of each dimension, the batch first; -1 where it is free.",
        examples=[[-1, 1, 8, 8]],
    )

    def faults(self) -> Iterator[Fault]:
        """Dimensions of size 0."""
        for number, size in enumerate(self.shape):
            if size == 0:
                yield Fault("must not be 0: write -1 where the size is free", ("shape", number))


class Input(Tensor):
    """An input of the model."""

    preprocess: Annotated[tuple[Transform, ...], Lax] = Field(
        default=(),
        description="Transforms, in order, that turn an encoded input (an image, a recording, a "
        "text or a row) into the tensor.",
        examples=[[{"decode": {"mode": "L"}}, {"layout": "NCHW"}]],
    )

    def spec(self) -> TensorSpec:
        """The input as the engine has it."""
        return TensorSpec(self.name, self.datatype, self.shape, self.preprocess)


class Output(Tensor):
    """An output of the model."""

    postprocess: Annotated[tuple[Transform, ...], Lax] = Field(
        default=(),
        description="Transforms, in order, that turn the tensor into the answer.",
        examples=[["softmax", {"topk": {"k": 3}}]],
    )
    labels: Annotated[tuple[str, ...], Lax] = Field(
        default=(),
        description="Name of each class, in the order of the last dimension.",
        examples=[["cat", "dog"]],
    )

    def spec(self) -> TensorSpec:
        """The output as the engine has it."""
        return TensorSpec(self.name, self.datatype, self.shape, self.postprocess, self.labels)


class Compression(Element):
    """How weights are stored, beyond their precision. Core ML alone has these forms."""

    weights: Literal["palettized", "sparse"] = Field(
        description="A lookup table for each tensor, or zeros left out.", examples=["palettized"]
    )
    bits: Literal[1, 2, 3, 4, 6, 8] = Field(
        default=4, description="Bits of an index into the palette.", examples=[4]
    )
    sparsity: Fraction = Field(
        default=0.5, description="Share of weights that become zero.", examples=[0.5]
    )


class Optimize(Element):
    """How the model is made smaller and faster."""

    precision: Precision | None = Field(
        default=None,
        description="Precision to build; `source` leaves the model as it is. Without it: the first "
        "that the target lists, and `source` for what is compiled already.",
        examples=["int8"],
    )
    compression: Compression | None = Field(
        default=None, description="How weights are stored.", examples=[{"weights": "sparse"}]
    )


class Asset(Element):
    """A file that the model's transforms read, shipped beside it."""

    path: RelativePath = Field(description="The file.", examples=["tokenizer.json"])
    sha256: Sha256 | None = Field(
        default=None,
        description="Digest of the file. Anything else is refused.",
        examples=["9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"],
    )


class Gate(Element):
    """What one metric must reach for a variant to be released."""

    min: float | None = Field(default=None, description="Least value.", examples=[0.95])
    max: float | None = Field(
        default=None, description="Greatest value, for an error such as mae.", examples=[48.0]
    )
    max_drop: float | None = Field(
        default=None,
        ge=0,
        description="Most that the variant may lose against the model as it came.",
        examples=[0.02],
    )
    max_rise: float | None = Field(
        default=None,
        ge=0,
        description="Most that an error may rise against the model as it came.",
        examples=[1.5],
    )

    def faults(self) -> Iterator[Fault]:
        """A gate that lets everything through."""
        if not self.model_fields_set:
            yield Fault("an empty gate checks nothing: give min, max, maxDrop or maxRise")


class ModelSpec(Element):
    """Everything about one version of a model."""

    version: Version = Field(
        description="The version: the tag of what is built. Never change what a version is.",
        examples=["1.0.0"],
    )
    task: Task = Field(
        description="What the model does; it decides which metrics are measured.",
        examples=["classification"],
    )
    description: str = Field(
        default="",
        description="What it is for, in the model card.",
        examples=["Handwritten digits"],
    )
    license: str = Field(
        default="", description="SPDX identifier of its licence.", examples=["Apache-2.0"]
    )
    source: Source = Field(
        description="The trained model.", examples=[{"format": "onnx", "path": "digits.onnx"}]
    )
    inputs: Annotated[tuple[Input, ...], Lax] = Field(
        min_length=1,
        description="What the model takes.",
        examples=[[{"name": "image", "datatype": "FP32", "shape": [-1, 1, 8, 8]}]],
    )
    outputs: Annotated[tuple[Output, ...], Lax] = Field(
        min_length=1,
        description="What the model gives.",
        examples=[[{"name": "logits", "datatype": "FP32", "shape": [-1, 10]}]],
    )
    calibration: Calibration | None = Field(
        default=None,
        description="Data for int8 ranges; int8 needs it.",
        examples=[{"path": "calibration.npz"}],
    )
    evaluation: Evaluation | None = Field(
        default=None,
        description="Data that quality is measured on; gates need it.",
        examples=[{"path": "evaluation.npz"}],
    )
    golden: Golden = Field(
        description="Inputs with right outputs, run by a device before it serves the model.",
        examples=[{"path": "golden.npz"}],
    )
    assets: dict[AssetName, Asset] = Field(
        default_factory=dict,
        description="Files that transforms name, by the name that they have beside the model.",
        examples=[{"tokenizer.json": {"path": "tokenizer.json"}}],
    )
    optimize: Optimize = Field(
        default_factory=Optimize,
        description="What is done to the model for each target.",
        examples=[{"precision": "int8"}],
    )
    gates: dict[MetricName, Gate] = Field(
        default_factory=dict,
        description="What each metric must reach; a variant that does not is never released.",
        examples=[{"accuracy": {"min": 0.95, "maxDrop": 0.02}}],
    )

    @property
    def wanted_precision(self) -> Precision | None:
        """The precision that the model asks for; None if the target decides."""
        if self.optimize.precision is None and self.source.format in COMPILED:
            return AS_IT_IS
        return self.optimize.precision

    def faults(self) -> Iterator[Fault]:
        """Gates without data; two tensors of one name; data that is used twice."""
        if self.calibration and self.evaluation and self.calibration.path == self.evaluation.path:
            fault = "is the calibration data too: a model is not measured on what it was fit to"
            yield Fault(fault, ("evaluation", "path"), ("calibration",))
        if self.gates and self.evaluation is None:
            yield Fault("need evaluation data to be measured on", ("gates",), ("evaluation",))
        own = tuple(self.evaluation.metrics) if self.evaluation else ()
        known = (*metrics_of(self.task), *own)
        for metric in self.gates:
            if metric not in known:
                fault = f"is no metric of {self.task} ({suggest(metric, known)})"
                yield Fault(fault, ("gates", metric), ("task", "evaluation"))
            elif metric not in (*UNBOUNDED, *own):
                yield from _percentages(metric, self.gates[metric])
        seen: set[str] = set()
        tensors: tuple[tuple[str, tuple[Tensor, ...]], ...] = (
            ("inputs", self.inputs),
            ("outputs", self.outputs),
        )
        for side, several in tensors:
            for number, tensor in enumerate(several):
                if tensor.name in seen:
                    fault = f"another tensor has the name {tensor.name!r}"
                    yield Fault(fault, (side, number, "name"))
                seen.add(tensor.name)


def _percentages(metric: str, gate: Gate) -> Iterator[Fault]:
    """Limits of a share that no share reaches: 95 where 0.95 is meant."""
    for field in type(gate).model_fields:
        limit = getattr(gate, field)
        if limit is not None and limit > 1:
            meant = f"write {limit / 100:g}" if limit <= 100 else "it is at most 1"
            fault = f"{metric} is a share from 0 to 1, which {limit:g} is not: {meant}"
            yield Fault(fault, ("gates", metric, to_camel(field)), ("evaluation",))


def _canonical(spec: TensorSpec) -> TensorSpec:
    return replace(spec, transforms=tuple(canonical(each) for each in spec.transforms))


class Model(Manifest):
    """One version of a model. Its identity is name and version: several versions of one model
    are several manifests of one name."""

    kind: Literal["Model"] = Field(description="The kind.", examples=["Model"])
    spec: ModelSpec = Field(description="What the model is.", examples=[{"version": "1.0.0"}])

    @property
    def version(self) -> str:
        """`spec.version`."""
        return self.spec.version

    @property
    def key(self) -> tuple[str, str]:
        """Name and version."""
        return (self.name, self.version)

    def signature(self) -> ModelSignature:
        """The signature that ships with every variant, its engine still to be filled in."""
        golden = self.spec.golden.tolerance
        return ModelSignature(
            name=self.name,
            version=self.version,
            task=self.spec.task,
            inputs=tuple(_canonical(tensor.spec()) for tensor in self.spec.inputs),
            outputs=tuple(_canonical(tensor.spec()) for tensor in self.spec.outputs),
            golden_tolerance={
                "absolute": golden.absolute,
                "relative": golden.relative,
                "top1": golden.top1,
            },
        )
