"""Model cards: the README.md inside an artifact, for people. Says nothing measured.

Accuracy and latency are in the signed evaluation attestation beside the artifact, so that measuring
again does not change the artifact.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from edgectl.build.shipped import search_path
from edgectl.errors import SourceError, ToolchainError

if TYPE_CHECKING:
    from pathlib import Path

    from edgectl.engine.signature import ModelSignature, TensorSpec

TEMPLATE = "model-card.md.j2"


def find_template(repository: Path | None = None) -> Path:
    """The template of model cards; raises ToolchainError if not even ours is there."""
    for folder in search_path("templates", repository):
        if (folder / TEMPLATE).is_file():
            return folder / TEMPLATE
    raise ToolchainError(f"there is no template {TEMPLATE}", hint="reinstall edgectl")


def require_renderer() -> None:
    """Raise ToolchainError where Jinja2 is missing, before anything is built for nothing."""
    if find_spec("jinja2") is None:
        raise ToolchainError("model cards need Jinja2", hint="pip install 'edgectl[build]'")


def model_card(
    template: Path, signature: ModelSignature, description: str, license_name: str
) -> str:
    """Markdown, the same for the same model and template.

    The template gets `name`, `version`, `task`, `description`, `license`, `engine`, `inputs` and
    `outputs`; of each tensor `name`, `datatype`, `shape`, `transforms` and `labels`. It is rendered
    in Jinja2's sandbox. Raises SourceError if it is faulty, ToolchainError without Jinja2.
    """
    require_renderer()
    from jinja2 import StrictUndefined, TemplateError
    from jinja2.sandbox import SandboxedEnvironment

    # Markdown, not HTML: escaping would garble it.
    environment = SandboxedEnvironment(
        undefined=StrictUndefined, keep_trailing_newline=True, autoescape=False
    )
    try:
        return environment.from_string(template.read_text(encoding="utf-8")).render(
            name=signature.name,
            version=signature.version,
            task=signature.task,
            description=description,
            license=license_name,
            engine=dict(signature.engine),
            inputs=[_tensor(tensor) for tensor in signature.inputs],
            outputs=[_tensor(tensor) for tensor in signature.outputs],
        )
    except (TemplateError, OSError, UnicodeDecodeError) as error:
        raise SourceError(
            f"{template} cannot be rendered: {error}",
            hint="correct the template, or delete it to use the one that edgectl ships",
        ) from error


def _tensor(tensor: TensorSpec) -> dict[str, Any]:
    return {
        "name": tensor.name,
        "datatype": tensor.datatype,
        "shape": " x ".join("any" if size == -1 else str(size) for size in tensor.shape),
        "transforms": [name for transform in tensor.transforms for name in transform],
        "labels": list(tensor.labels),
    }
