"""Which builder does what for a model: the first on the search path that says it can."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgectl.errors import ManifestError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgectl.desired import DesiredBuilder, DesiredModel

REFERENCE_ENGINE = "onnxruntime"
"""Runs the imported model, which the accuracy of its variants is held against."""


def importer(builders: Sequence[DesiredBuilder], model: DesiredModel) -> DesiredBuilder:
    """The builder that imports the model; raises ManifestError if there is none."""
    for builder in builders:
        if model.source_format in builder.formats:
            return builder
    formats = sorted({name for builder in builders for name in builder.formats})
    raise ManifestError(
        f"model {model.name}: no builder imports the format {model.source_format!r}",
        hint=f"set source.format to one of {', '.join(formats)}, or add a builder",
    )


def backend(builders: Sequence[DesiredBuilder], engine: str, where: str) -> DesiredBuilder:
    """The builder that makes and measures models for an engine; raises ManifestError.

    `where` says for an error what asks for the engine.
    """
    for builder in builders:
        if engine in builder.engines:
            return builder
    engines = sorted({name for builder in builders for name in builder.engines})
    raise ManifestError(
        f"{where}: no builder makes models for the engine {engine!r}",
        hint=f"there are builders for {', '.join(engines)}; use such a target, or add a builder",
    )


def used(builders: Sequence[DesiredBuilder], model: DesiredModel) -> list[DesiredBuilder]:
    """Every builder that takes part in making a model, each once, by name; raises ManifestError."""
    found = [importer(builders, model)]
    for variant in model.variants:
        where = f"target {variant.target.name}"
        found.append(backend(builders, variant.target.engine, where))
    if model.evaluation is not None:
        found.append(backend(builders, REFERENCE_ENGINE, f"{model.name}:{model.version}"))
    return [each for _, each in sorted({builder.name: builder for builder in found}.items())]
