"""What the server says about itself and its models (Open Inference Protocol, and Triton's model
configuration and repository index, which Triton's clients ask for)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgectl.engine.transforms import encoded_kind
from edgectl.serve.answers import served_outputs

if TYPE_CHECKING:
    from collections.abc import Mapping

    from edgectl.engine.signature import ModelSignature, TensorSpec
    from edgectl.serve.model import ServedModel

_TRITON_NAMES = {"BYTES": "TYPE_STRING"}
_FORMATS = {
    "onnxruntime": "onnx", "openvino": "ir", "tensorrt": "plan", "litert": "tflite",
    "tflm": "tflite", "coreml": "mlpackage",
}  # fmt: skip


def server(version: str) -> dict[str, Any]:
    """`GET /v2`."""
    return {
        "name": "edgectl",
        "version": version,
        "extensions": [
            "binary_tensor_data", "classification", "model_configuration", "model_repository",
        ],
    }  # fmt: skip


def model(signature: ModelSignature) -> dict[str, Any]:
    """`GET /v2/models/<model>`: an input that also takes encoded data says which kind."""
    return {
        "name": signature.name,
        "versions": [signature.version],
        "platform": _platform(signature),
        "inputs": [_tensor(spec) | _encoded(spec) for spec in signature.inputs],
        "outputs": [_tensor(spec) for spec in served_outputs(signature)],
    }


def config(signature: ModelSignature) -> dict[str, Any]:
    """`GET /v2/models/<model>/config`, as far as it says something here. The shapes are whole
    (`max_batch_size` 0), because the batch is an ordinary dimension of them."""
    return {
        "name": signature.name,
        "platform": _platform(signature),
        "backend": _engine(signature),
        "max_batch_size": 0,
        "input": [_triton(spec) for spec in signature.inputs],
        "output": [_triton(spec) for spec in served_outputs(signature)],
    }


def index(models: Mapping[str, ServedModel]) -> list[dict[str, str]]:
    """`POST /v2/repository/index`."""
    return [
        {"name": name, "version": model.version, "state": "READY", "reason": ""}
        for name, model in sorted(models.items())
    ]


def _engine(signature: ModelSignature) -> str:
    return str(signature.engine.get("name", "onnxruntime"))


def _platform(signature: ModelSignature) -> str:
    """Engine and format, as the protocol has it: `<project>_<format>`."""
    engine = _engine(signature)
    return f"{engine}_{_FORMATS[engine]}" if engine in _FORMATS else engine


def _tensor(spec: TensorSpec) -> dict[str, Any]:
    return {"name": spec.name, "datatype": spec.datatype, "shape": list(spec.shape)}


def _encoded(spec: TensorSpec) -> dict[str, Any]:
    kind = encoded_kind(spec)
    return {"parameters": {"encoded": kind}} if kind else {}


def _triton(spec: TensorSpec) -> dict[str, Any]:
    kind = _TRITON_NAMES.get(spec.datatype, f"TYPE_{spec.datatype}")
    return {"name": spec.name, "data_type": kind, "dims": list(spec.shape)}
