"""Names by which manifests refer to each other: each must be there."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from edgectl.manifest.collection import newest
from edgectl.manifest.fleet import Fleet
from edgectl.manifest.problem import suggest

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

    from edgectl.manifest.document import Document
    from edgectl.manifest.fleet import ModelReference
    from edgectl.manifest.problem import Problem


@dataclass(slots=True)
class Names:
    """What is called what. Invalid manifests keep their names: they have problems of their own,
    and a reference to one is not another."""

    targets: dict[str, Document] = field(default_factory=dict)
    shipped: Collection[str] = ()
    """Profiles that edgectl ships; of these, only those that a fleet names are in `targets`."""
    models: dict[str, dict[str, Document]] = field(default_factory=lambda: defaultdict(dict))
    unversioned: set[str] = field(default_factory=set)
    """Models of which some manifest has no readable version."""
    lost: Collection[str] = ()
    """Names of manifests whose kind is not known: they can be of any."""
    where: str = ""
    """Where a manifest could still be of which there is none."""

    def missing(self, kind: str, name: str, known: Iterable[str]) -> tuple[str, str | None]:
        """What to say of a name that nothing has, and what to do."""
        suggestion = suggest(name, known)
        is_close = suggestion is not None and suggestion.startswith("did you mean")
        return f"there is no {kind} {name!r}{'' if is_close else self.where}", suggestion

    def model(self, reference: ModelReference) -> Document | None:
        """The document that a fleet means: of its version, else of the newest."""
        versions = {
            version: document
            for version, document in self.models.get(reference.name, {}).items()
            if not document.place.is_guess(("spec", "version"))
        }
        if not versions:
            return None
        return versions.get(reference.version or newest(versions))


def names_of(
    documents: Iterable[Document],
    shipped: Collection[str],
    *,
    lost: Collection[str] = (),
    unread: int = 0,
) -> Names:
    """The names that documents define, and those of shipped profiles; `unread` is the number of
    files that are not YAML to their end."""
    files = "a file" if unread == 1 else f"{unread} files"
    where = f", or it is in {files} that cannot be read" if unread else ""
    names = Names(shipped=shipped, lost=lost, where=where)
    for document in documents:
        if document.name is None:
            continue
        if document.kind == "Target":
            names.targets[document.name] = document
        elif document.kind == "Model" and document.version is not None:
            names.models[document.name][document.version] = document
        elif document.kind == "Model":
            names.unversioned.add(document.name)
    return names


def reference_problems(documents: Iterable[Document], names: Names) -> Iterator[Problem]:
    """Fleets that name targets, models or versions that nothing defines."""
    for document in documents:
        if isinstance(document.manifest, Fleet):
            yield from _unknown_targets(document, document.manifest, names)
            yield from _unknown_models(document, document.manifest, names)


def _unknown_targets(document: Document, fleet: Fleet, names: Names) -> Iterator[Problem]:
    for number, target in enumerate(fleet.spec.targets):
        if target not in names.targets and target not in names.lost:
            missing = names.missing("Target", target, {*names.targets, *names.shipped})
            yield document.problem(("spec", "targets", number), *missing)


def _unknown_models(document: Document, fleet: Fleet, names: Names) -> Iterator[Problem]:
    known = {*names.models, *names.unversioned, *names.lost}
    for number, model in enumerate(fleet.spec.models):
        at = ("spec", "models", number)
        if model.name not in known:
            yield document.problem((*at, "name"), *names.missing("Model", model.name, known))
        elif (
            model.version is not None
            and model.name not in {*names.unversioned, *names.lost}
            and model.version not in names.models[model.name]
        ):
            yield document.problem(
                (*at, "version"),
                f"Model {model.name!r} has no version {model.version!r}",
                suggest(model.version, names.models[model.name]),
            )
    in_fleet = {model.name for model in fleet.spec.models}
    if document.place.is_guess(("spec", "models")) or not in_fleet <= known:
        return
    for number, ring in enumerate(fleet.spec.rings):
        for model_name in ring.soak.min_accuracy:
            if model_name not in in_fleet:
                yield document.problem(
                    ("spec", "rings", number, "soak", "minAccuracy", model_name),
                    f"the fleet runs no model {model_name!r}",
                    suggest(model_name, in_fleet),
                )
