"""Expand the manifests to Desired: defaults, hardware profiles, and the digest of every file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from edgectl.desired import (
    Desired,
    DesiredBuilder,
    DesiredFleet,
    DesiredModel,
    DesiredRing,
    DesiredTarget,
    DesiredVariant,
    ModelKey,
    PinnedFile,
)
from edgectl.digest import Digest
from edgectl.manifest.problem import SourceErrors
from edgectl.oci.descriptor import Platform
from edgectl.trust.release import Selector, SoakSettings

if TYPE_CHECKING:
    from pathlib import Path

    from edgectl.manifest.base import Element
    from edgectl.manifest.collection import ManifestSet
    from edgectl.manifest.fleet import Fleet
    from edgectl.manifest.model import Model
    from edgectl.manifest.problem import Problem
    from edgectl.manifest.target import Target, TargetSpec


def expand(
    manifests: ManifestSet,
    builders: tuple[DesiredBuilder, ...],
    signers: tuple[str, ...],
    *,
    model_card: PinnedFile | None = None,
    source_date_epoch: int = 0,
) -> Desired:
    """Expand the manifests: one DesiredModel for each version that some fleet wants somewhere.

    Raises SourceErrors with every file that cannot be read or has another sha256 than its manifest
    says.
    """
    pin = _Pinner()
    fleets = tuple(_fleet(fleet, manifests) for _, fleet in sorted(manifests.fleets.items()))
    wanted: dict[ModelKey, set[str]] = {}
    for fleet in fleets:
        for key in fleet.models:
            wanted.setdefault(key, set()).update(fleet.targets)
    targets = {
        name: _target(manifests.targets[name])
        for name in sorted({name for names in wanted.values() for name in names})
    }
    models = []
    for key, names in sorted(wanted.items()):
        model = manifests.models[key]
        variants = tuple(
            DesiredVariant(targets[name], _precision(model, manifests.targets[name]))
            for name in sorted(names)
        )
        models.append(_model(model, variants, pin))
    if pin.problems:
        raise SourceErrors(pin.problems)
    return Desired(tuple(models), fleets, builders, signers, model_card, source_date_epoch)


def _model(model: Model, variants: tuple[DesiredVariant, ...], pin: _Pinner) -> DesiredModel:
    spec = model.spec
    signature = model.signature()
    calibration, evaluation = spec.calibration, spec.evaluation
    params: dict[str, Any] = {}
    if calibration is not None:
        params["method"] = calibration.method
        if calibration.percentile is not None:
            params["percentile"] = calibration.percentile
    return DesiredModel(
        name=model.name,
        version=model.version,
        task=spec.task,
        description=spec.description,
        license=spec.license,
        source=pin.source(model),
        source_format=spec.source.format,
        trust_code=spec.source.trust_code,
        inputs=signature.inputs,
        outputs=signature.outputs,
        calibration=pin.file(model, ("calibration",), calibration) if calibration else None,
        calibration_params=params,
        evaluation=pin.file(model, ("evaluation",), evaluation) if evaluation else None,
        evaluation_labels=evaluation.labels if evaluation else "",
        own_metrics={
            name: (pin.file(model, ("evaluation", "metrics", name), metric), metric.function)
            for name, metric in (evaluation.metrics if evaluation else {}).items()
        },
        golden=pin.file(model, ("golden",), spec.golden),
        golden_tolerance=signature.golden_tolerance,
        assets={
            name: pin.file(model, ("assets", name), asset) for name, asset in spec.assets.items()
        },
        compression=_given(spec.optimize.compression),
        gates={metric: _given(gate) for metric, gate in spec.gates.items()},
        variants=variants,
    )


def _precision(model: Model, target: Target) -> str:
    """The precision that the model asks for, else the one that the target prefers: it has that,
    and the data for it, or the manifests would not have been read."""
    return model.spec.wanted_precision or target.spec.precisions[0]


def _target(target: Target) -> DesiredTarget:
    spec = target.spec
    quantization = spec.quantization
    return DesiredTarget(
        name=target.name,
        platform=Platform(spec.platform.os, spec.platform.architecture, spec.platform.variant),
        family=spec.family,
        engine=spec.engine.name,
        engine_version=spec.engine.version,
        providers=spec.engine.providers,
        quantization=quantization.model_dump(by_alias=True) if quantization else {},
        engine_options=_engine_options(spec),
        cpu_features=spec.cpu.features,
        accelerators=tuple(accelerator.kind for accelerator in spec.accelerators),
        cores=spec.cpu.cores,
        power=spec.power.typical if spec.power else None,
        limits=spec.limits(),
    )


def _engine_options(spec: TargetSpec) -> dict[str, Any]:
    capabilities = [each.compute_capability for each in spec.accelerators]
    options = {
        "device": spec.engine.device,
        "workspace": spec.engine.workspace,
        "computeCapability": next(filter(None, capabilities), None),
    }
    return {name: value for name, value in options.items() if value is not None}


def _given(element: Element | None) -> dict[str, Any]:
    """What a manifest says in an element, defaults included; empty without one."""
    return {} if element is None else element.model_dump(by_alias=True, exclude_none=True)


def _fleet(fleet: Fleet, manifests: ManifestSet) -> DesiredFleet:
    spec = fleet.spec
    return DesiredFleet(
        name=fleet.name,
        selector=Selector(dict(spec.selector.match_labels), spec.selector.share),
        targets=spec.targets,
        models=tuple(manifests.model(ref).key for ref in spec.models),
        rings=tuple(
            DesiredRing(
                ring.name,
                Selector(dict(ring.selector.match_labels), ring.selector.share)
                if ring.selector
                else Selector(),
                SoakSettings(
                    ring.soak.duration, ring.soak.max_error_rate, dict(ring.soak.min_accuracy)
                ),
            )
            for ring in spec.rings
        ),
    )


class _Named(Protocol):
    """A part of a manifest that names a file."""

    @property
    def path(self) -> str | None: ...
    @property
    def sha256(self) -> str | None: ...


class _Pinner:
    """Hashes each local file once."""

    def __init__(self) -> None:
        self._digests: dict[Path, Digest] = {}
        self.problems: list[Problem] = []
        """What is wrong with files, so far."""

    def source(self, model: Model) -> PinnedFile:
        source = model.spec.source
        if source.path is not None:
            return self.file(model, ("source",), source)
        if source.oci is not None:
            return PinnedFile(
                Digest.parse(source.oci.rpartition("@")[2]), remote=_reference(model, source.oci)
            )
        return PinnedFile(Digest(source.sha256 or ""), remote=source.url)

    def file(self, model: Model, section: tuple[str, ...], named: _Named) -> PinnedFile:
        """What a section of the manifest names; where that is not to be had, a problem is noted and
        something stands for it."""
        path = model.path(named.path or "")
        at = ("spec", *section)
        try:
            digest = self._digest(path, directory=section == ("source",))
        except OSError as error:
            message = f"{path} cannot be read: {error.strerror}"
            self.problems.append(model.place.problem((*at, "path"), message))
            return PinnedFile(Digest("0" * 64), path)
        if named.sha256 is not None and digest.hex != named.sha256:
            message = f"{path} has sha256 {digest.hex}, and not {named.sha256}"
            self.problems.append(model.place.problem((*at, "sha256"), message))
        return PinnedFile(digest, path)

    def _digest(self, path: Path, *, directory: bool) -> Digest:
        if path not in self._digests:
            is_tree = directory and path.is_dir()
            self._digests[path] = Digest.of_tree(path) if is_tree else Digest.of_file(path)
        return self._digests[path]


def _reference(model: Model, text: str) -> str:
    """A reference whose directory, if it is one, is relative to the model's manifest."""
    scheme, _, path = text.partition(":")
    return f"{scheme}:{model.path(path).absolute()}" if scheme == "oci-layout" else text
