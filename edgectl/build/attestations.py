"""Predicates of the attestations beside a variant: provenance, bill of materials, evaluation. Pure.

What they say is signed by `edgectl.trust.attestation`; the subject is the variant's manifest.
"""

from __future__ import annotations

import re
import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from edgectl.digest import Digest, canonical_json

if TYPE_CHECKING:
    from collections.abc import Mapping

    from edgectl.engine.signature import ModelSignature, TensorSpec

PROVENANCE_TYPE = "https://slsa.dev/provenance/v1"
BOM_TYPE = "https://cyclonedx.org/bom"
EVALUATION_TYPE = "https://edgectl.dev/evaluation/v1"
BUILD_TYPE = "https://edgectl.dev/build/v1"

_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, BUILD_TYPE)
_PINNED = re.compile(r"^([A-Za-z0-9][A-Za-z0-9._-]*)==([^\s;\\]+)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class BuiltBy:
    """A builder that took part."""

    name: str
    digest: Digest
    """Of the builder's folder (`Builder.digest`)."""
    lock: str = ""
    """Text of its requirements.lock."""


@dataclass(frozen=True, slots=True)
class Built:
    """One variant and everything it was made from."""

    signature: ModelSignature
    target: str
    precision: str
    license: str
    model: Digest
    """Of the weights file that is shipped."""
    materials: Mapping[str, Digest]
    """Role (`source`, `calibration`, `evaluation`, `golden`) to the file's digest."""
    builders: tuple[BuiltBy, ...]
    params: Mapping[str, Any] = field(default_factory=dict)
    """Parameters of the step that made the model."""
    agreements: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Step (`import`, `optimize`) to how far its outputs were from those of what it started from,
    as `edgectl.build.kit.agreement` says it."""
    calibrations: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Step to the `method` that its ranges were taken by; with what the Model `asked` for, where
    the engine's quantiser lacks that."""
    edgectl_version: str = ""


def provenance(built: Built) -> dict[str, Any]:
    """SLSA v1 provenance (slsa.dev/spec/v1.0/provenance).

    `runDetails.metadata` stays empty: with a clock in it, every run would make another attestation
    of the same artifact.
    """
    return {
        "buildDefinition": {
            "buildType": BUILD_TYPE,
            "externalParameters": {
                "model": built.signature.name,
                "version": built.signature.version,
                "target": built.target,
                "precision": built.precision,
            },
            "internalParameters": dict(built.params),
            "resolvedDependencies": [
                {"name": name, "digest": {"sha256": digest.hex}}
                for name, digest in (
                    *sorted(built.materials.items()),
                    *((f"builder/{by.name}", by.digest) for by in built.builders),
                )
            ],
        },
        "runDetails": {
            "builder": {
                "id": f"{BUILD_TYPE}/apply",
                "version": {"edgectl": built.edgectl_version},
            },
            "byproducts": [
                {"name": f"{what}/{step}", "annotations": dict(facts)}
                for what, steps in (
                    ("agreement", built.agreements),
                    ("calibration", built.calibrations),
                )
                for step, facts in sorted(steps.items())
            ],
        },
    }


def bill_of_materials(built: Built) -> dict[str, Any]:
    """CycloneDX 1.6 with the model as its subject: card, data sets, and the toolchain's packages.

    The serial number is derived from the content, so that the same variant has the same one.
    """
    name, version = built.signature.name, built.signature.version
    model_ref = f"model:{name}@{version}"
    datasets = [_dataset(role, digest) for role, digest in sorted(built.materials.items())]
    libraries = _libraries(built.builders)
    bom: dict[str, Any] = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "tools": {
                "components": [
                    {"type": "application", "name": "edgectl", "version": built.edgectl_version}
                ]
            },
            "component": {
                "type": "machine-learning-model",
                "bom-ref": model_ref,
                "name": name,
                "version": version,
                "hashes": [{"alg": "SHA-256", "content": built.model.hex}],
                **({"licenses": [{"expression": built.license}]} if built.license else {}),
                "modelCard": _card(built, [entry["bom-ref"] for entry in datasets]),
            },
        },
        "components": [*datasets, *libraries],
        "dependencies": [
            {
                "ref": model_ref,
                "dependsOn": [entry["bom-ref"] for entry in (*datasets, *libraries)],
            }
        ],
    }
    serial = uuid.uuid5(_NAMESPACE, Digest.of(canonical_json(bom)).hex)
    return {"serialNumber": f"urn:uuid:{serial}", **bom}


def _card(built: Built, datasets: list[str]) -> dict[str, Any]:
    def formats(tensors: tuple[TensorSpec, ...]) -> list[dict[str, str]]:
        return [{"format": f"{t.name}: {t.datatype} {list(t.shape)}"} for t in tensors]

    return {
        "modelParameters": {
            "task": built.signature.task,
            "datasets": [{"ref": ref} for ref in datasets],
            "inputs": formats(built.signature.inputs),
            "outputs": formats(built.signature.outputs),
        },
        "properties": [
            {"name": "edgectl:target", "value": built.target},
            {"name": "edgectl:precision", "value": built.precision},
        ],
    }


def _dataset(role: str, digest: Digest) -> dict[str, Any]:
    kind = "machine-learning-model" if role == "source" else "data"
    return {
        "type": kind,
        "bom-ref": f"{role}:{digest}",
        "name": role,
        "hashes": [{"alg": "SHA-256", "content": digest.hex}],
    }


def _libraries(builders: tuple[BuiltBy, ...]) -> list[dict[str, Any]]:
    """Every package of the toolchains' locks, each once, as package URLs."""
    pinned = sorted({match for by in builders for match in _PINNED.findall(by.lock)})
    return [
        {
            "type": "library",
            "bom-ref": f"pkg:pypi/{name.lower()}@{version}",
            "name": name,
            "version": version,
            "purl": f"pkg:pypi/{name.lower()}@{version}",
            "scope": "excluded",
        }
        for name, version in pinned
    ]


def evaluation(report: Mapping[str, Any], baseline: Mapping[str, float] | None) -> dict[str, Any]:
    """The evaluation predicate: `edgectl.build.evaluation.report_for`'s report, and the baseline.

    `baseline` holds the metrics of the imported fp32 model on the same data.
    """
    return {**report, **({} if baseline is None else {"baseline": dict(baseline)})}
