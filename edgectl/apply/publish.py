"""The steps that no toolchain is needed for: package, index, image, attest, sign."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgectl import __version__
from edgectl.apply.measured import report_of
from edgectl.apply.schedule import State
from edgectl.build import attestations, gates, modelpack
from edgectl.build.builder import find_builder
from edgectl.build.card import model_card
from edgectl.digest import Digest, canonical_json
from edgectl.engine.signature import ModelSignature
from edgectl.errors import IntegrityError
from edgectl.oci.descriptor import TITLE, VERSION, Descriptor, Manifest, Platform, parse_manifest
from edgectl.oci.image import Variant, assemble_model_image, push_image
from edgectl.plan.observed import APPLIED_TYPE, PARTIAL, Applied, applied_tag
from edgectl.plan.step import StepKind
from edgectl.trust import signature
from edgectl.trust.attestation import attest as attach
from edgectl.trust.tree import sign_tree

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from edgectl.apply.execute import Executor
    from edgectl.apply.result import StepResult
    from edgectl.apply.schedule import Outcome
    from edgectl.desired import PinnedFile
    from edgectl.oci.store import Repository
    from edgectl.plan.step import Step

    Outcomes = Mapping[str, Outcome]
    Publisher = Callable[[Executor, Step, Outcomes], Descriptor]
    """Makes an artifact in the step's repository."""

_OCTETS = "application/octet-stream"
_MAKING = (StepKind.IMPORT, StepKind.OPTIMIZE, StepKind.COMPILE)


def package(run: Executor, step: Step, outcomes: Outcomes) -> Descriptor:
    """Hold the variant against its gates, then package it. Raises GateError."""
    results, params = _results(step, outcomes), step.params
    if "evaluation" in results:
        found = gates.violations(
            report_of(step, results["evaluation"]),
            gates=params["gates"],
            limits=params["limits"],
            baseline=results["baseline"].metadata["metrics"],
        )
    else:
        found = gates.oversize(_size(results["model"], weights=True), params["limits"])
    found += gates.overfull(_size(results["model"]), params["limits"])
    gates.require(step.title.removeprefix("package "), found)
    repository = run.store.repository(step.repository)
    pushed = {
        role: _push(run, repository, file) for role, file in step.files.items() if role != "card"
    }
    packed = modelpack.pack(
        modelpack.Variant(
            signature=_signature(step),
            target=params["target"],
            platform=Platform.from_json(params["platform"]),
            precision=params["precision"],
            requires=params["requires"],
            description=params["description"],
            license=params["license"],
        ),
        model=results["model"].tree("model"),
        golden=pushed.pop("golden"),
        assets={role.removeprefix("asset/"): file for role, file in pushed.items()},
        card=model_card(
            run.inputs.pinned(step.files["card"]),
            _signature(step),
            params["description"],
            params["license"],
        ),
    )
    for digest, data in packed.blobs.items():
        repository.push_blob(Descriptor(_OCTETS, digest, len(data)), data)
    return repository.push_manifest(packed.manifest.to_bytes(), packed.manifest.media_type)


def _push(run: Executor, repository: Repository, file: PinnedFile) -> Descriptor:
    path = run.inputs.pinned(file)
    descriptor = Descriptor(_OCTETS, file.digest, path.stat().st_size)
    repository.push_blob(descriptor, path)
    return descriptor


def _size(built: StepResult, *, weights: bool = False) -> int:
    """Bytes of a built model: of all of its files, or of those that hold the weights."""
    model = built.tree("model")
    if isinstance(model, Descriptor):
        return model.size
    kept = (file for path, file in model.items() if not weights or modelpack.is_weight(path))
    return sum(file.size for file in kept)


def _digest(built: StepResult) -> Digest:
    """Of a built model: of its file, or of the directory that it is."""
    model = built.tree("model")
    if isinstance(model, Descriptor):
        return model.digest
    return Digest.of_files({path: file.digest for path, file in model.items()})


def index(run: Executor, step: Step, outcomes: Outcomes) -> Descriptor:
    """The index of a model version, over the variants that passed."""
    repository = run.store.repository(step.repository)
    entries = [
        modelpack.Entry(
            _manifest(repository, result.manifest),
            Platform.from_json(outcomes[step.uses[target]].step.params["platform"]),
        )
        for target, result in _results(step, outcomes).items()
    ]
    made = modelpack.model_index(step.params["name"], step.params["version"], entries)
    return push_image(repository, made)


def image(run: Executor, step: Step, outcomes: Outcomes) -> Descriptor:
    """The multi-arch image of a model version, over the variants that passed."""
    variants = []
    for target, result in sorted(_results(step, outcomes).items()):
        packaged = outcomes[step.uses[target]].step
        repository = run.store.repository(packaged.repository)
        files = {
            layer.annotations[modelpack.FILEPATH]: run.inputs.blob(repository, layer)
            for layer in _manifest(repository, result.manifest).layers
        }
        platform = Platform.from_json(packaged.params["platform"])
        variants.append(Variant(target, platform, files))
    name, version = step.params["name"], step.params["version"]
    images = run.store.repository(step.repository)
    titles = {
        TITLE: name,
        VERSION: version,
    }
    with run.scratch() as directory:
        made = assemble_model_image(name, variants, directory, annotations=titles)
        pushed = push_image(images, made)
    sign_tree(images, pushed, run.key)
    return pushed


def attest(run: Executor, step: Step, outcomes: Outcomes) -> Descriptor:
    """Attach provenance, bill of materials and evaluation to a variant."""
    results = _results(step, outcomes)
    made = [kind.value for kind in _MAKING if kind.value in results]
    packaged = outcomes[step.uses["package"]].step
    repository = run.store.repository(step.repository)
    built = attestations.Built(
        signature=_signature(packaged),
        target=packaged.params["target"],
        precision=packaged.params["precision"],
        license=step.params["license"],
        model=_digest(results[made[-1]]),
        materials={role: file.digest for role, file in step.files.items()},
        builders=tuple(_built_by(run, name) for name in step.params["builders"]),
        params=outcomes[step.uses[made[-1]]].step.params,
        agreements=_said_of("agreement", made, results),
        calibrations=_said_of("calibration", made, results),
        edgectl_version=__version__,
    )
    predicates: dict[str, dict[str, Any]] = {
        attestations.PROVENANCE_TYPE: attestations.provenance(built),
        attestations.BOM_TYPE: attestations.bill_of_materials(built),
    }
    if "evaluate" in results:
        baseline = results["baseline"].metadata["metrics"]
        report = report_of(packaged, results["evaluate"])
        predicates[attestations.EVALUATION_TYPE] = attestations.evaluation(report, baseline)
    for kind, predicate in predicates.items():
        attach(repository, results["package"].manifest, kind, predicate, run.key)
    return results["package"].manifest


def _said_of(
    what: str, made: Sequence[str], results: Mapping[str, StepResult]
) -> dict[str, Mapping[str, Any]]:
    """One fact of the steps that made a variant, by step, as far as their builders say it."""
    return {role: results[role].metadata[what] for role in made if what in results[role].metadata}


def sign(run: Executor, step: Step, outcomes: Outcomes) -> Descriptor:
    """Sign everything, then move the version's tags, then say that the version is complete."""
    results = _results(step, outcomes)
    models = run.store.repository(step.repository)
    images = run.store.repository(outcomes[step.uses["image"]].step.repository)
    version = step.params["version"]
    sign_tree(models, results["index"].manifest, run.key)
    sign_tree(images, results["image"].manifest, run.key)
    images.tag(results["image"].manifest, version)
    models.tag(results["index"].manifest, version)
    packages = {
        role.removeprefix("attest-"): result.manifest.digest
        for role, result in results.items()
        if role.startswith("attest-")
    }
    record = Applied(
        # Another key than the plan's makes the next plan try the missing variants again.
        step.key if is_whole(step, outcomes) else f"{PARTIAL}{step.key}",
        results["index"].manifest.digest,
        results["image"].manifest.digest,
        packages,
        step.params["inputs"],
    ).to_bytes()
    config = Descriptor.of(record, APPLIED_TYPE)
    models.push_blob(config, record)
    manifest = Manifest(config, (), artifact_type=APPLIED_TYPE)
    made = models.push_manifest(manifest.to_bytes(), manifest.media_type)
    # Before it is tagged: a plan believes the tag, and no release follows what is not signed.
    signature.sign(models, made, run.key)
    models.tag(made, applied_tag(version))
    return made


PUBLISHERS: Mapping[StepKind, Publisher] = {
    StepKind.PACKAGE: package,
    StepKind.INDEX: index,
    StepKind.IMAGE: image,
    StepKind.ATTEST: attest,
    StepKind.SIGN: sign,
}


def _results(step: Step, outcomes: Outcomes) -> dict[str, StepResult]:
    """Role to result, of the steps before that were done."""
    return {
        role: outcome.result
        for role, key in step.uses.items()
        if (outcome := outcomes[key]).state is State.DONE and outcome.result is not None
    }


def _signature(packaged: Step) -> ModelSignature:
    return ModelSignature.from_json(canonical_json(packaged.params["signature"]))


def _built_by(run: Executor, name: str) -> attestations.BuiltBy:
    builder = find_builder(name, repository=run.root)
    return attestations.BuiltBy(name, builder.digest, builder.lock.read_text())


def _manifest(repository: Repository, descriptor: Descriptor) -> Manifest:
    manifest = parse_manifest(repository.read_manifest(str(descriptor.digest))[1])
    if not isinstance(manifest, Manifest):
        raise IntegrityError(f"{repository.name}@{descriptor.digest} is not a model's manifest")
    return manifest


def is_whole(step: Step, outcomes: Outcomes) -> bool:
    """Whether a step has all of its inputs: only then is its result what its key stands for."""
    return len(_results(step, outcomes)) == len(step.uses)
