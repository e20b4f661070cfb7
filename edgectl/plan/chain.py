"""The steps that take one model version from its source to signed artifacts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgectl.engine.signature import ModelSignature
from edgectl.plan.backends import REFERENCE_ENGINE, backend, importer
from edgectl.plan.fingerprint import model_inputs
from edgectl.plan.step import Step, StepKind, make_step

if TYPE_CHECKING:
    from collections.abc import Mapping

    from edgectl.desired import (
        Desired,
        DesiredBuilder,
        DesiredModel,
        DesiredVariant,
        PinnedFile,
    )


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


def model_steps(model: DesiredModel, desired: Desired) -> ModelSteps:
    """Every step of a model; raises ManifestError if no builder takes its format or engine."""
    name = f"{model.name}:{model.version}"
    imported = make_step(
        StepKind.IMPORT,
        f"import {name}",
        model.repository,
        builder=importer(desired.builders, model),
        params={"inputs": _tensors(model.inputs), "outputs": _tensors(model.outputs)},
        files={
            "source": model.source,
            **_data(calibration=model.calibration, evaluation=model.evaluation),
        },
        model=model.key,
    )
    baseline = None
    if model.evaluation is not None:
        reference = backend(desired.builders, REFERENCE_ENGINE, name)
        params = _evaluation_params(model, ("CPUExecutionProvider",), latency=False)
        baseline = _evaluate(model, f"evaluate {name} as imported", reference, imported, params)
    variants = tuple(
        _variant_steps(model, variant, desired, imported, baseline) for variant in model.variants
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
    imported: Step,
    baseline: Step | None,
) -> VariantSteps:
    target = variant.target
    name = f"{model.name}:{model.version} for {target.name}"
    maker = backend(desired.builders, target.engine, f"target {target.name}")
    optimize = imported
    if variant.precision != "fp32":
        optimize = make_step(
            StepKind.OPTIMIZE,
            f"optimize {name} ({variant.precision})",
            model.repository,
            builder=maker,
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
        params |= {
            "architecture": target.platform.architecture,
            "threads": target.cores,
            "goldenTolerance": dict(model.golden_tolerance),
        }
        evaluate = _evaluate(
            model,
            f"evaluate {name}",
            maker,
            optimize,
            params,
            golden=model.golden,
            target=target.name,
        )
    package = _package(model, variant, desired, optimize, evaluate, baseline)
    took_part = {each.name: each for each in (importer(desired.builders, model), maker)}
    attest = make_step(
        StepKind.ATTEST,
        f"attest {name}",
        model.repository,
        params={
            "signers": list(desired.signers),
            "name": model.name,
            "version": model.version,
            "license": model.license,
            "builders": {name: str(each.digest) for name, each in took_part.items()},
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
    desired: Desired,
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
        files=_data(golden=model.golden, card=desired.model_card),
        uses=uses,
        model=model.key,
        target=target.name,
    )


def _evaluate(
    model: DesiredModel,
    title: str,
    builder: DesiredBuilder,
    of: Step,
    params: Mapping[str, Any],
    *,
    golden: PinnedFile | None = None,
    target: str | None = None,
) -> Step:
    return make_step(
        StepKind.EVALUATE,
        title,
        model.repository,
        builder=builder,
        params=params,
        files=_data(evaluation=model.evaluation, golden=golden),
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
