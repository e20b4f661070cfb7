"""Whether each model can be had on every target of its fleets, in the precision it asks for."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from edgectl.manifest.fleet import Fleet
from edgectl.manifest.model import AS_IT_IS, Model
from edgectl.manifest.problem import suggest
from edgectl.manifest.target import Target

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from edgectl.manifest.document import Document
    from edgectl.manifest.formats import SourceFormats
    from edgectl.manifest.problem import Problem
    from edgectl.manifest.references import Names

_OF_TARGET = (("spec", "precisions"), ("spec", "quantization"), ("spec", "engine"))
"""What of a target decides; a guess at one says nothing."""


@dataclass(slots=True)
class _Wanted:
    """A model, and the targets that some fleet wants it for, by name."""

    document: Document
    model: Model
    targets: dict[str, Target] = field(default_factory=dict)


def misfits(
    documents: Iterable[Document], names: Names, formats: SourceFormats | None
) -> Iterator[Problem]:
    """Problems of models on targets, told at the model, once for all targets that share one.

    Without `formats` every engine is taken to run every format.
    """
    for wanted in _wanted(documents, names):
        yield from _precision(wanted)
        yield from _calibration(wanted)
        if formats is not None:
            yield from _engine(wanted, formats)


def _wanted(documents: Iterable[Document], names: Names) -> Iterable[_Wanted]:
    found: dict[int, _Wanted] = {}
    for fleet in documents:
        if not isinstance(fleet.manifest, Fleet):
            continue
        for reference in fleet.manifest.spec.models:
            document = names.model(reference)
            if document is None or not isinstance(document.manifest, Model):
                continue
            wanted = found.setdefault(id(document), _Wanted(document, document.manifest))
            for name in fleet.manifest.spec.targets:
                target = names.targets.get(name)
                if target is None or any(map(target.place.is_guess, _OF_TARGET)):
                    continue
                if isinstance(target.manifest, Target):
                    wanted.targets[name] = target.manifest
    return found.values()


def _precision(wanted: _Wanted) -> Iterator[Problem]:
    asked = wanted.model.spec.wanted_precision
    if asked is None or asked == AS_IT_IS:
        return
    lacking = {
        name: target
        for name, target in wanted.targets.items()
        if asked not in target.spec.precisions
    }
    if lacking:
        shared = set.intersection(*(set(each.spec.precisions) for each in wanted.targets.values()))
        yield wanted.document.problem(
            ("spec", "optimize", "precision"),
            f"{_named(lacking)} no precision {asked!r}",
            suggest(None, shared or {p for each in lacking.values() for p in each.spec.precisions}),
        )


def _calibration(wanted: _Wanted) -> Iterator[Problem]:
    asked = wanted.model.spec.wanted_precision
    if wanted.model.spec.calibration is not None:
        return
    needing = [
        name
        for name, target in wanted.targets.items()
        if target.spec.needs_calibration(asked or target.spec.precisions[0])
        and (asked is None or asked in target.spec.precisions)
    ]
    if needing:
        verb = "needs" if len(needing) == 1 else "need"
        yield wanted.document.problem(
            ("spec", "calibration"),
            f"is missing, and int8 for {_listed(needing)} {verb} it",
            "give calibration data, or write optimize: {precision: fp32}",
        )


def _engine(wanted: _Wanted, formats: SourceFormats) -> Iterator[Problem]:
    source = wanted.model.spec.source.format
    engines = formats.engines.get(source)
    if engines is None:  # a format that no builder reads is another problem
        return
    known = frozenset().union(*formats.engines.values())  # of others, the plan says who is missing
    foreign = {
        name: target.spec.engine.name
        for name, target in wanted.targets.items()
        if target.spec.engine.name in known - engines
    }
    if foreign:
        theirs = " and ".join(sorted(set(foreign.values())))
        runs = " and ".join(sorted(engines)) or "no engine"
        yield wanted.document.problem(
            ("spec", "source", "format"),
            f"{source} runs on {runs} alone and is not translated; {_named(foreign)} {theirs}",
            f"put it into a fleet whose targets have {runs}, or give the model in the format that "
            "it was trained in",
        )


def _named(names: Iterable[str]) -> str:
    names = list(names)
    return f"{_listed(names)} {'has' if len(names) == 1 else 'have'}"


def _listed(names: list[str]) -> str:
    noun = "Target" if len(names) == 1 else "Targets"
    return f"{noun} {', '.join(map(repr, names))}"
