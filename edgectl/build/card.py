"""Model cards: the README.md inside an artifact, for people. Says nothing measured."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgectl.engine.signature import ModelSignature, TensorSpec


def model_card(signature: ModelSignature, description: str, license_name: str) -> str:
    """Markdown, the same for the same model.

    Accuracy and latency are in the signed evaluation attestation beside the artifact, so that
    measuring again does not change the artifact.
    """
    engine = signature.engine
    lines = [
        f"# {signature.name} {signature.version}",
        "",
        description or f"A model for {signature.task}.",
        "",
        f"- Task: {signature.task}",
        f"- License: {license_name or 'not stated'}",
        f"- Engine: {engine['name']} {engine['version']}",
        "",
        "## Inputs",
        "",
        *(_tensor(tensor) for tensor in signature.inputs),
        "",
        "## Outputs",
        "",
        *(_tensor(tensor) for tensor in signature.outputs),
        "",
        "How accurate and how fast it is: the evaluation attestation of this artifact.",
        "",
    ]
    return "\n".join(lines)


def _tensor(tensor: TensorSpec) -> str:
    shape = " x ".join("any" if size == -1 else str(size) for size in tensor.shape)
    names = [name for transform in tensor.transforms for name in transform]
    steps = f", through {', '.join(names)}" if names else ""
    labels = f"; classes {', '.join(tensor.labels)}" if tensor.labels else ""
    return f"- `{tensor.name}`: {tensor.datatype}, {shape}{steps}{labels}"
