"""Which builder does what for a model: the first on the search path that says it can."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgectl.errors import ManifestError
from edgectl.manifest.problem import suggest

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from edgectl.desired import DesiredBuilder, DesiredModel, DesiredTarget

REFERENCE_ENGINE = "onnxruntime"
"""Runs the imported model, which its variants are held against."""

NATIVE_ENGINES = {
    "tflite": "litert", "openvino": "openvino", "coreml": "coreml", "tensorrt": "tensorrt",
}  # fmt: skip
"""The engine that runs a source format as it is: the reference for its variants."""


@dataclass(frozen=True, slots=True)
class Route:
    """How a model gets to an engine."""

    importer: DesiredBuilder | None
    """Makes ONNX of the source; None where the maker takes the source as it is."""
    maker: DesiredBuilder
    """Optimises it."""
    compiler: DesiredBuilder | None
    """Makes of the optimised model what the engine takes; None where the maker did."""

    @property
    def evaluator(self) -> DesiredBuilder:
        """Runs the variant."""
        return self.compiler or self.maker

    @property
    def builders(self) -> tuple[DesiredBuilder, ...]:
        """Everything that takes part."""
        return tuple(filter(None, (self.importer, self.maker, self.compiler)))


def route(builders: Sequence[DesiredBuilder], model: DesiredModel, target: DesiredTarget) -> Route:
    """The way of a model to a target; raises ManifestError if there is none."""
    own = _backend(builders, target.engine, f"target {target.name}")
    if own.compiles is not None and model.source_format not in own.takes:
        _backend(builders, own.compiles, f"target {target.name}")
    way = _way(builders, model.source_format, target.engine)
    if way is None:
        raise _no_way(builders, model, target)
    return Route(*way)


def engines_of(builders: Sequence[DesiredBuilder]) -> dict[str, frozenset[str]]:
    """The engines that a model of each source format can be made for."""
    formats = {name for builder in builders for name in (*builder.formats, *builder.takes)}
    engines = {name for builder in builders for name in builder.engines}
    return {
        name: frozenset(engine for engine in engines if _way(builders, name, engine))
        for name in formats
    }


def _way(
    builders: Sequence[DesiredBuilder], source_format: str, engine: str
) -> tuple[DesiredBuilder | None, DesiredBuilder, DesiredBuilder | None] | None:
    """Who imports, who optimises and who compiles a format for an engine; None if nobody can."""
    own = _for_engine(builders, engine)
    maker, compiler = own, None
    if own is not None and own.compiles is not None and source_format not in own.takes:
        maker, compiler = _for_engine(builders, own.compiles), own
    if maker is None:
        return None
    if source_format in maker.takes:
        return None, maker, compiler
    importer = _importer(builders, source_format)
    return None if importer is None else (importer, maker, compiler)


def _for_engine(builders: Sequence[DesiredBuilder], engine: str) -> DesiredBuilder | None:
    return next((builder for builder in builders if engine in builder.engines), None)


def reference(
    builders: Sequence[DesiredBuilder], model: DesiredModel
) -> tuple[DesiredBuilder | None, DesiredBuilder]:
    """What a model's variants are held against: an importer, if ONNX is made of the source first,
    and the builder that runs it. Raises ManifestError if nothing does."""
    native = NATIVE_ENGINES.get(model.source_format)
    for builder in builders:
        if native in builder.engines and model.source_format in builder.takes:
            return None, builder
    where = f"{model.name}:{model.version}"
    importer = _importer(builders, model.source_format)
    if importer is None:
        raise _no_reference(model)
    return importer, _backend(builders, REFERENCE_ENGINE, where)


def used(builders: Sequence[DesiredBuilder], model: DesiredModel) -> list[DesiredBuilder]:
    """Every builder that takes part in making a model, each once, by name; raises ManifestError."""
    found = [
        builder
        for variant in model.variants
        for builder in route(builders, model, variant.target).builders
    ]
    if model.evaluation is not None:
        found += filter(None, reference(builders, model))
    return [each for _, each in sorted({builder.name: builder for builder in found}.items())]


def taking_part(
    builders: Sequence[DesiredBuilder], models: Iterable[DesiredModel]
) -> frozenset[str]:
    """The names of the builders that a plan of these models uses."""
    examples = {
        (
            model.source_format,
            model.evaluation is None,
            frozenset(variant.target.engine for variant in model.variants),
        ): model
        for model in models
    }
    found: set[str] = set()
    for model in examples.values():
        with suppress(ManifestError):  # that nothing makes it is for the plan to say
            found |= {builder.name for builder in used(builders, model)}
    return frozenset(found)


def _importer(builders: Sequence[DesiredBuilder], source_format: str) -> DesiredBuilder | None:
    return next((builder for builder in builders if source_format in builder.formats), None)


def _backend(builders: Sequence[DesiredBuilder], engine: str, where: str) -> DesiredBuilder:
    found = _for_engine(builders, engine)
    if found is not None:
        return found
    engines = sorted({name for builder in builders for name in builder.engines})
    raise ManifestError(
        f"{where}: no builder makes models for the engine {engine!r}",
        hint=f"there are builders for {', '.join(engines)}; use such a target, or add a builder",
    )


def _no_way(
    builders: Sequence[DesiredBuilder], model: DesiredModel, target: DesiredTarget
) -> ManifestError:
    engines = sorted(
        {
            engine
            for builder in builders
            if model.source_format in builder.takes
            for engine in builder.engines
        }
    )
    if not engines:
        return _no_importer(builders, model)
    return ManifestError(
        f"model {model.name}:{model.version} is of format {model.source_format}, which runs on "
        f"{' and '.join(engines)} alone and is not translated; target {target.name} has "
        f"{target.engine}",
        hint=f"put it into a fleet whose targets have {' or '.join(engines)}, or give the model in "
        "the format that it was trained in",
    )


def _no_importer(builders: Sequence[DesiredBuilder], model: DesiredModel) -> ManifestError:
    formats = {name for builder in builders for name in (*builder.formats, *builder.takes)}
    return ManifestError(
        f"model {model.name}:{model.version}: no builder reads the format {model.source_format!r}",
        hint=f"set source.format ({suggest(model.source_format, formats)}), or add a builder",
    )


def _no_reference(model: DesiredModel) -> ManifestError:
    return ManifestError(
        f"model {model.name}:{model.version}: no engine runs a {model.source_format} model as it "
        "came and no builder imports it, so there is nothing to measure its variants against",
        hint="add an import action for the format to a builder, or leave spec.evaluation out",
    )
