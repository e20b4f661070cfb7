"""The steps that take one model version from its source to signed artifacts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgectl.engine.signature import ModelSignature
from edgectl.errors import ManifestError
from edgectl.plan.fingerprint import model_inputs
from edgectl.plan.step import Step, StepKind, make_step

if TYPE_CHECKING:
    from collections.abc import Mapping

    from edgectl.desired import Desired, DesiredModel, DesiredVariant, PinnedFile
    from edgectl.digest import Digest

IMPORTERS = {"onnx": "onnx", "skops": "sklearn"}
"""Source format to the builder that imports it."""
BACKENDS = {"onnxruntime": "onnx"}
"""Engine to the builder that optimises and evaluates for it."""


@dataclass(frozen=True, slots=True)
class VariantSteps:
    """The steps of one model for one target."""

    target: str
    precision: str
    optimize: Step
    """The optimize step, or the import step where the variant is the imported model itself."""
    evaluate: Step | None
    package: Step
    attest: Step


@dataclass(frozen=True, slots=True)
class ModelSteps:
    """Every step of one model version."""

    imported: Step
    baseline: Step | None
    """Evaluation of the imported model, which accuracy drops are measured against."""
    variants: tuple[VariantSteps, ...]
    index: Step
    image: Step
    sign: Step

    @property
    def steps(self) -> tuple[Step, ...]:
        """All steps, each once, every step after the steps it uses."""
        ordered = [self.imported, *([self.baseline] if self.baseline else [])]
        for variant in self.variants:
            ordered += [variant.optimize, *([variant.evaluate] if variant.evaluate else [])]
            ordered.append(variant.package)
        ordered += [self.index, self.image, *(variant.attest for variant in self.variants)]
        ordered.append(self.sign)
        return tuple({step.key: step for step in ordered}.values())


class _Builders:
    """Looks up builders by what they are needed for, with errors that say what is known."""

    def __init__(self, digests: Mapping[str, Digest]) -> None:
        self._digests = digests

    def importer(self, model: DesiredModel) -> tuple[str, Digest]:
        return self._find(IMPORTERS, model.source_format, f"model {model.name}: source format")

    def backend(self, engine: str, where: str) -> tuple[str, Digest]:
        return self._find(BACKENDS, engine, f"{where}: engine")

    def _find(self, table: Mapping[str, str], wanted: str, what: str) -> tuple[str, Digest]:
        name = table.get(wanted)
        if name is None or name not in self._digests:
            raise ManifestError(
                f"{what} {wanted!r} has no builder in this version of edgectl",
                hint=f"it builds {', '.join(sorted(table))}",
            )
        return name, self._digests[name]


def model_steps(model: DesiredModel, desired: Desired) -> ModelSteps:
    """Every step of a model; raises ManifestError if no builder takes its format or engine."""
    builders = _Builders(desired.builders)
    name = f"{model.name}:{model.version}"
    imported = make_step(
        StepKind.IMPORT,
        f"import {name}",
        model.repository,
        builder=builders.importer(model),
        params={"inputs": _tensors(model.inputs), "outputs": _tensors(model.outputs)},
        files={
            "source": model.source,
            **_data(calibration=model.calibration, evaluation=model.evaluation),
        },
        model=model.key,
    )
    baseline = None
    if model.evaluation is not None:
        onnx = builders.backend("onnxruntime", name)
        params = _evaluation_params(model, ("CPUExecutionProvider",), latency=False)
        baseline = _evaluate(model, f"evaluate {name} as imported", onnx, imported, params)
    variants = tuple(
        _variant_steps(model, variant, desired, builders, imported, baseline)
        for variant in model.variants
    )
    packages = {variant.target: variant.package for variant in variants}
    shared: dict[str, Any] = {"model": model.key}
    index = make_step(
        StepKind.INDEX,
        f"index {name}",
        model.repository,
        params={"name": model.name, "version": model.version},
        uses=packages,
        **shared,
    )
    image = make_step(
        StepKind.IMAGE,
        f"image {name}",
        model.image_repository,
        params={
            "name": model.name,
            "version": model.version,
            "sourceDateEpoch": desired.source_date_epoch,
        },
        uses=packages,
        **shared,
    )
    attests = {f"attest-{variant.target}": variant.attest for variant in variants}
    sign = make_step(
        StepKind.SIGN,
        f"sign {name}",
        model.repository,
        params={
            "signers": list(desired.signers),
            "version": model.version,
            "inputs": model_inputs(model, desired),
        },
        uses={"index": index, "image": image, **attests},
        **shared,
    )
    return ModelSteps(imported, baseline, variants, index, image, sign)


def _variant_steps(
    model: DesiredModel,
    variant: DesiredVariant,
    desired: Desired,
    builders: _Builders,
    imported: Step,
    baseline: Step | None,
) -> VariantSteps:
    target = variant.target
    name = f"{model.name}:{model.version} for {target.name}"
    backend = builders.backend(target.engine, f"target {target.name}")
    optimize = imported
    if variant.precision != "fp32":
        optimize = make_step(
            StepKind.OPTIMIZE,
            f"optimize {name} ({variant.precision})",
            model.repository,
            builder=backend,
            params={
                "precision": variant.precision,
                **target.quantization,
                **model.calibration_params,
            },
            files=_data(calibration=model.calibration),
            uses={"model": imported},
            model=model.key,
            target=target.name,
        )
    evaluate = None
    if model.evaluation is not None:
        params = _evaluation_params(model, target.providers, latency=True)
        params |= {"architecture": target.platform.architecture, "threads": target.cores}
        evaluate = _evaluate(
            model, f"evaluate {name}", backend, optimize, params, target=target.name
        )
    package = _package(model, variant, optimize, evaluate, baseline)
    attest = make_step(
        StepKind.ATTEST,
        f"attest {name}",
        model.repository,
        params={
            "signers": list(desired.signers),
            "name": model.name,
            "version": model.version,
            "license": model.license,
            "builders": {name: str(digest) for name, digest in sorted(desired.builders.items())},
        },
        files=_data(
            source=model.source,
            calibration=model.calibration,
            evaluation=model.evaluation,
            golden=model.golden,
        ),
        uses={
            "package": package,
            "optimize": optimize,
            **({"evaluate": evaluate, "baseline": baseline} if evaluate and baseline else {}),
        },
        model=model.key,
        target=target.name,
    )
    return VariantSteps(target.name, variant.precision, optimize, evaluate, package, attest)


def _package(
    model: DesiredModel,
    variant: DesiredVariant,
    optimize: Step,
    evaluate: Step | None,
    baseline: Step | None,
) -> Step:
    target = variant.target
    signature = ModelSignature(
        model.name,
        model.version,
        model.task,
        model.inputs,
        model.outputs,
        {
            "name": target.engine,
            "version": target.engine_version,
            "providers": list(target.providers),
        },
        model.golden_tolerance,
    )
    params = {
        "signature": signature.to_json(),
        "target": target.name,
        "platform": target.platform.to_json(),
        "precision": variant.precision,
        "requires": target.requirements(),
        "limits": dict(target.limits),
        "gates": {metric: dict(gate) for metric, gate in model.gates.items()},
        "description": model.description,
        "license": model.license,
    }
    uses = {"model": optimize}
    if evaluate is not None and baseline is not None:
        uses |= {"evaluation": evaluate, "baseline": baseline}
    return make_step(
        StepKind.PACKAGE,
        f"package {model.name}:{model.version} for {target.name}",
        model.repository,
        params=params,
        files={"golden": model.golden},
        uses=uses,
        model=model.key,
        target=target.name,
    )


def _evaluate(
    model: DesiredModel,
    title: str,
    builder: tuple[str, Digest],
    of: Step,
    params: Mapping[str, Any],
    *,
    target: str | None = None,
) -> Step:
    return make_step(
        StepKind.EVALUATE,
        title,
        model.repository,
        builder=builder,
        params=params,
        files=_data(evaluation=model.evaluation),
        uses={"model": of},
        model=model.key,
        target=target,
    )


def _evaluation_params(
    model: DesiredModel, providers: tuple[str, ...], *, latency: bool
) -> dict[str, Any]:
    return {
        "labels": model.evaluation_labels,
        "task": model.task,
        "outputs": [
            {
                "name": output.name,
                "transforms": [dict(transform) for transform in output.transforms],
                "labels": list(output.labels),
            }
            for output in model.outputs
        ],
        "providers": list(providers),
        "latency": latency,
    }


def _tensors(tensors: tuple[Any, ...]) -> list[dict[str, Any]]:
    return [
        {"name": tensor.name, "datatype": tensor.datatype, "shape": list(tensor.shape)}
        for tensor in tensors
    ]


def _data(**files: PinnedFile | None) -> dict[str, PinnedFile]:
    return {role: file for role, file in files.items() if file is not None}
