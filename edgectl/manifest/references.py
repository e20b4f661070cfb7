"""Names by which manifests refer to each other: each must be there, and fit."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from edgectl.manifest.collection import newest
from edgectl.manifest.fleet import Fleet
from edgectl.manifest.model import AS_IT_IS, Model
from edgectl.manifest.problem import suggest
from edgectl.manifest.target import Target

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from edgectl.manifest.document import Document
    from edgectl.manifest.problem import Problem


@dataclass(slots=True)
class _Names:
    """What is called what. Invalid manifests keep their names: they have problems of their own,
    and a reference to one is not another."""

    targets: dict[str, Document] = field(default_factory=dict)
    models: dict[str, dict[str, Document]] = field(default_factory=lambda: defaultdict(dict))
    unversioned: set[str] = field(default_factory=set)
    """Models of which some manifest has no readable version."""


def reference_problems(documents: Iterable[Document]) -> Iterator[Problem]:
    """Fleets that name targets, models or versions that nothing defines, and models that a target
    of their fleet cannot have in the precision they ask for."""
    documents = list(documents)
    names = _Names()
    for document in documents:
        if document.name is None:
            continue
        if document.kind == "Target":
            names.targets[document.name] = document
        elif document.kind == "Model" and document.version is not None:
            names.models[document.name][document.version] = document
        elif document.kind == "Model":
            names.unversioned.add(document.name)
    for document in documents:
        if isinstance(document.manifest, Fleet):
            yield from _unknown_targets(document, document.manifest, names)
            yield from _unknown_models(document, document.manifest, names)
            yield from _misfits(document.manifest, names)


def _unknown_targets(document: Document, fleet: Fleet, names: _Names) -> Iterator[Problem]:
    for number, target in enumerate(fleet.spec.targets):
        if target not in names.targets:
            yield document.problem(
                ("spec", "targets", number),
                f"there is no Target {target!r}",
                suggest(target, names.targets),
            )


def _unknown_models(document: Document, fleet: Fleet, names: _Names) -> Iterator[Problem]:
    known = {*names.models, *names.unversioned}
    for number, model in enumerate(fleet.spec.models):
        at = ("spec", "models", number)
        if model.name not in known:
            yield document.problem(
                (*at, "name"), f"there is no Model {model.name!r}", suggest(model.name, known)
            )
        elif (
            model.version is not None
            and model.name not in names.unversioned
            and model.version not in names.models[model.name]
        ):
            yield document.problem(
                (*at, "version"),
                f"Model {model.name!r} has no version {model.version!r}",
                suggest(model.version, names.models[model.name]),
            )
    in_fleet = {model.name for model in fleet.spec.models}
    for number, ring in enumerate(fleet.spec.rings):
        for model_name in ring.soak.min_accuracy:
            if model_name not in in_fleet:
                yield document.problem(
                    ("spec", "rings", number, "soak", "minAccuracy", model_name),
                    f"the fleet runs no model {model_name!r}",
                    suggest(model_name, in_fleet),
                )


def _misfits(fleet: Fleet, names: _Names) -> Iterator[Problem]:
    """Problems of the fleet's models on the fleet's targets, told at the model."""
    targets = [names.targets[name].manifest for name in fleet.spec.targets if name in names.targets]
    for reference in fleet.spec.models:
        versions = names.models.get(reference.name)
        if not versions:
            continue
        document = versions.get(reference.version or newest(versions))
        if document is None or not isinstance(document.manifest, Model):
            continue
        for target in targets:
            if isinstance(target, Target):
                yield from _misfit(document, document.manifest, target)


def _misfit(document: Document, model: Model, target: Target) -> Iterator[Problem]:
    asked = model.spec.wanted_precision
    if asked is not None and asked not in {*target.spec.precisions, AS_IT_IS}:
        yield document.problem(
            ("spec", "optimize", "precision"),
            f"Target {target.name!r} has no precision {asked!r}",
            suggest(None, target.spec.precisions),
        )
        return
    precision = asked or target.spec.precisions[0]
    if target.spec.needs_calibration(precision) and model.spec.calibration is None:
        yield document.problem(
            ("spec", "calibration"),
            f"is missing, and int8 for Target {target.name!r} needs it",
            "give calibration data, or write optimize: {precision: fp32}",
        )
