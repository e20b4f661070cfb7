"""The signature of a model: its inputs, outputs and declared transforms.

Stored as `signature.json` beside the model (media type `...weight.config.v1.raw`), read by
evaluation, warm-up and the server alike. Datatypes are the Open Inference Protocol's names.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Mapping

    Transform = Mapping[str, Any]

DATATYPES = (
    "BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64",
    "FP16", "FP32", "FP64", "BYTES",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One input or output; shape uses -1 for a dimension that is free (the batch comes first)."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    transforms: tuple[Transform, ...] = ()
    """Pre-processing of an encoded input, or post-processing of an output, in order. Each is a
    mapping with one key, the transform's name (`edgectl.engine.transforms`)."""
    labels: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ModelSignature:
    """What a model takes and gives."""

    name: str
    version: str
    task: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    engine: Mapping[str, Any] = field(default_factory=dict)
    """`name`, `version` and `providers` that this variant was made for."""
    golden_tolerance: Mapping[str, float] = field(default_factory=dict)
    """`absolute`, `relative` (numpy.allclose's) and `top1` (least share of equal argmax)."""

    def to_json(self) -> dict[str, Any]:
        """The `signature.json` object."""
        return {
            "schemaVersion": 1,
            "name": self.name,
            "version": self.version,
            "task": self.task,
            "inputs": [_tensor_json(tensor) for tensor in self.inputs],
            "outputs": [_tensor_json(tensor) for tensor in self.outputs],
            "engine": dict(self.engine),
            "goldenTolerance": dict(self.golden_tolerance),
        }

    @classmethod
    def from_json(cls, data: str | bytes) -> Self:
        """Parse `signature.json`; raises ValueError if it is malformed."""
        try:
            value = json.loads(data)
            if value["schemaVersion"] != 1:
                raise ValueError(f"schemaVersion {value['schemaVersion']!r} is not 1")
            return cls(
                str(value["name"]),
                str(value["version"]),
                str(value["task"]),
                tuple(_tensor(tensor) for tensor in value["inputs"]),
                tuple(_tensor(tensor) for tensor in value["outputs"]),
                dict(value["engine"]),
                {str(k): float(v) for k, v in value["goldenTolerance"].items()},
            )
        except (KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
            raise ValueError(f"malformed model signature: {error!r}") from error


def _tensor_json(tensor: TensorSpec) -> dict[str, Any]:
    return {
        "name": tensor.name,
        "datatype": tensor.datatype,
        "shape": list(tensor.shape),
        "transforms": [dict(transform) for transform in tensor.transforms],
        "labels": list(tensor.labels),
    }


def _tensor(value: Mapping[str, Any]) -> TensorSpec:
    if value["datatype"] not in DATATYPES:
        raise ValueError(f"datatype {value['datatype']!r} is not one of {', '.join(DATATYPES)}")
    return TensorSpec(
        str(value["name"]),
        str(value["datatype"]),
        tuple(int(size) for size in value["shape"]),
        tuple(dict(transform) for transform in value["transforms"]),
        tuple(str(label) for label in value["labels"]),
    )
