"""The steps that take one model version from its source to signed artifacts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgectl.engine.signature import ModelSignature
from edgectl.plan.backends import REFERENCE_ENGINE, Route, reference, route
from edgectl.plan.fingerprint import model_inputs
from edgectl.plan.step import Step, StepKind, make_step

if TYPE_CHECKING:
    from collections.abc import Mapping

    from edgectl.desired import (
        Desired,
        DesiredBuilder,
        DesiredModel,
        DesiredTarget,
        DesiredVariant,
        PinnedFile,
    )


@dataclass(frozen=True, slots=True)
class VariantSteps:
    """The steps of one model for one target."""

    target: str
    precision: str
    built: tuple[Step, ...]
    """Import, optimize and compile, as far as this variant has them; the last makes the model."""
    evaluate: Step | None
    package: Step
    attest: Step


@dataclass(frozen=True, slots=True)
class ModelSteps:
    """Every step of one model version."""

    imported: Step | None
    """None where every backend takes the source as it is."""
    baseline: Step | None
    """Evaluation of the model as it came, which drops are measured against."""
    variants: tuple[VariantSteps, ...]
    index: Step
    image: Step
    sign: Step

    @property
    def steps(self) -> tuple[Step, ...]:
        """All steps, each once, every step after the steps it uses."""
        ordered = [step for step in (self.imported, self.baseline) if step is not None]
        for variant in self.variants:
            ordered += [*variant.built, *([variant.evaluate] if variant.evaluate else [])]
            ordered.append(variant.package)
        ordered += [self.index, self.image, *(variant.attest for variant in self.variants)]
        ordered.append(self.sign)
        return tuple({step.key: step for step in ordered}.values())


def model_steps(model: DesiredModel, desired: Desired) -> ModelSteps:
    """Every step of a model; raises ManifestError if no builder takes its format or engine."""
    name = f"{model.name}:{model.version}"
    routes = [route(desired.builders, model, each.target) for each in model.variants]
    importer, judge = reference(desired.builders, model) if model.evaluation else (None, None)
    importers = [each for each in (importer, *(r.importer for r in routes)) if each is not None]
    imported = _import(model, importers[0]) if importers else None
    baseline = None
    if judge is not None:
        engine = {
            "engine": REFERENCE_ENGINE if importer else judge.engines[0],
            # A source has names of its own, which its variants no longer have.
            "byPosition": importer is None,
        }
        baseline = _evaluate(
            model,
            f"evaluate {name} as it came",
            judge,
            imported if importer else None,
            _evaluation_params(model, engine, latency=False),
            golden=model.golden,
            calibration=model.calibration,
        )
    variants = tuple(
        _variant_steps(model, variant, way, desired, imported, baseline)
        for variant, way in zip(model.variants, routes, strict=True)
    )
    packages = {variant.target: variant.package for variant in variants}
    shared: dict[str, Any] = {"model": model.key}
    index = make_step(
        StepKind.INDEX,
        f"index {name}",
        model.repository,
        params={
            "name": model.name,
            "version": model.version,
            "sourceDateEpoch": desired.source_date_epoch,
        },
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
            "inputs": model_inputs(model, desired, _kinds(imported, baseline, variants)),
        },
        uses={"index": index, "image": image, **attests},
        **shared,
    )
    return ModelSteps(imported, baseline, variants, index, image, sign)


def _kinds(
    imported: Step | None, baseline: Step | None, variants: tuple[VariantSteps, ...]
) -> frozenset[StepKind]:
    """Every kind of step that a model version takes."""
    steps = [imported, baseline, *(each for variant in variants for each in variant.built)]
    evaluated = [variant.evaluate for variant in variants]
    always = {StepKind.PACKAGE, StepKind.INDEX, StepKind.IMAGE, StepKind.ATTEST, StepKind.SIGN}
    return frozenset(always | {step.kind for step in (*steps, *evaluated) if step is not None})


def _import(model: DesiredModel, builder: DesiredBuilder) -> Step:
    return make_step(
        StepKind.IMPORT,
        f"import {model.name}:{model.version}",
        model.repository,
        builder=builder,
        params={
            "inputs": _tensors(model.inputs),
            "outputs": _tensors(model.outputs),
            "format": model.source_format,
            "trustCode": model.trust_code,
        },
        files={
            "source": model.source,
            **_data(calibration=model.calibration, evaluation=model.evaluation),
        },
        model=model.key,
    )


def _built(
    model: DesiredModel, variant: DesiredVariant, way: Route, imported: Step | None
) -> tuple[Step, ...]:
    """Import, optimize and compile, as far as a variant needs them."""
    target = variant.target
    name = f"{model.name}:{model.version} for {target.name}"
    steps = [imported] if way.importer is not None and imported is not None else []
    params = {
        "engine": target.engine,
        "engineVersion": target.engine_version,
        "precision": variant.precision,
        "inputs": _tensors(model.inputs),
        "outputs": _tensors(model.outputs),
        "format": model.source_format if way.importer is None else "onnx",
        "trustCode": model.trust_code,
        "providers": list(target.providers),
        "cpuFeatures": list(target.cpu_features),
        "accelerators": list(target.accelerators),
        "compression": dict(model.compression),
        **target.quantization,
        **target.engine_options,
        **model.calibration_params,
    }
    shared: dict[str, Any] = {"model": model.key, "target": target.name}
    # Whatever the precision: the backend knows what the target's version of the engine reads.
    source = {"source": model.source} if way.importer is None else {}
    steps.append(
        make_step(
            StepKind.OPTIMIZE,
            f"optimize {name} ({variant.precision})",
            model.repository,
            builder=way.maker,
            params=params,
            files={**source, **_data(calibration=model.calibration)},
            uses={"model": steps[-1]} if steps else {},
            **shared,
        )
    )
    if way.compiler is not None:
        steps.append(
            make_step(
                StepKind.COMPILE,
                f"compile {name}",
                model.repository,
                builder=way.compiler,
                params={
                    **params,
                    "architecture": target.platform.architecture,
                    "limits": dict(target.limits),
                },
                files=_data(calibration=model.calibration),
                uses={"model": steps[-1]},
                **shared,
            )
        )
    return tuple(steps)


def _variant_steps(
    model: DesiredModel,
    variant: DesiredVariant,
    way: Route,
    desired: Desired,
    imported: Step | None,
    baseline: Step | None,
) -> VariantSteps:
    target = variant.target
    name = f"{model.name}:{model.version} for {target.name}"
    built = _built(model, variant, way, imported)
    evaluate = None
    if model.evaluation is not None:
        params = _evaluation_params(model, _engine(target), latency=True)
        params |= {
            "architecture": target.platform.architecture,
            "threads": target.cores,
            "goldenTolerance": dict(model.golden_tolerance),
            "power": target.power,
        }
        evaluate = _evaluate(
            model,
            f"evaluate {name}",
            way.evaluator,
            built[-1],
            params,
            golden=model.golden,
            target=target.name,
        )
    package = _package(model, variant, desired, built[-1], evaluate, baseline)
    attest = make_step(
        StepKind.ATTEST,
        f"attest {name}",
        model.repository,
        params={
            "signers": list(desired.signers),
            "name": model.name,
            "version": model.version,
            "license": model.license,
            "builders": {each.name: str(each.digest) for each in way.builders},
        },
        files=_data(
            source=model.source,
            calibration=model.calibration,
            evaluation=model.evaluation,
            golden=model.golden,
            **{f"asset/{name}": file for name, file in model.assets.items()},
        ),
        uses={
            "package": package,
            **{step.kind.value: step for step in built},
            **({"evaluate": evaluate, "baseline": baseline} if evaluate and baseline else {}),
        },
        model=model.key,
        target=target.name,
    )
    return VariantSteps(target.name, variant.precision, built, evaluate, package, attest)


def _package(
    model: DesiredModel,
    variant: DesiredVariant,
    desired: Desired,
    built: Step,
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
            **target.engine_options,
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
    uses = {"model": built}
    if evaluate is not None and baseline is not None:
        uses |= {"evaluation": evaluate, "baseline": baseline}
    assets = {f"asset/{name}": file for name, file in model.assets.items()}
    return make_step(
        StepKind.PACKAGE,
        f"package {model.name}:{model.version} for {target.name}",
        model.repository,
        params=params,
        files=_data(golden=model.golden, card=desired.model_card, **assets),
        uses=uses,
        model=model.key,
        target=target.name,
    )


def _evaluate(
    model: DesiredModel,
    title: str,
    builder: DesiredBuilder,
    of: Step | None,
    params: Mapping[str, Any],
    *,
    golden: PinnedFile | None = None,
    calibration: PinnedFile | None = None,
    target: str | None = None,
) -> Step:
    """The evaluation of what a step made; of the source itself without one."""
    source = {"model": model.source} if of is None else {}
    return make_step(
        StepKind.EVALUATE,
        title,
        model.repository,
        builder=builder,
        params=params,
        files={
            **source,
            **_data(evaluation=model.evaluation, golden=golden, calibration=calibration),
            **{f"metric/{name}": file for name, (file, _) in model.own_metrics.items()},
        },
        uses={} if of is None else {"model": of},
        model=model.key,
        target=target,
    )


def _engine(target: DesiredTarget) -> dict[str, Any]:
    """The engine and its options, as params of an evaluation have them."""
    return {
        "engine": target.engine,
        "providers": list(target.providers),
        **target.engine_options,
    }


def _evaluation_params(
    model: DesiredModel, engine: Mapping[str, Any], *, latency: bool
) -> dict[str, Any]:
    return {
        **engine,
        "labels": model.evaluation_labels,
        "task": model.task,
        "inputs": _tensors(model.inputs),
        "outputs": [
            {
                "name": output.name,
                "transforms": [dict(transform) for transform in output.transforms],
                "labels": list(output.labels),
            }
            for output in model.outputs
        ],
        "metrics": {name: function for name, (_, function) in model.own_metrics.items()},
        "latency": latency,
    }


def _tensors(tensors: tuple[Any, ...]) -> list[dict[str, Any]]:
    return [
        {"name": tensor.name, "datatype": tensor.datatype, "shape": list(tensor.shape)}
        for tensor in tensors
    ]


def _data(**files: PinnedFile | None) -> dict[str, PinnedFile]:
    return {role: file for role, file in files.items() if file is not None}
