from __future__ import annotations

import json
from dataclasses import replace
from typing import Any
from urllib.parse import urlparse

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from edgectl.build.attestations import (
    Built,
    BuiltBy,
    bill_of_materials,
    evaluation,
    provenance,
)
from edgectl.build.builder import find_builder
from edgectl.build.evaluation import report_for
from edgectl.digest import Digest
from edgectl.engine.signature import ModelSignature, TensorSpec

ONNX = find_builder("onnx")
BUILT = Built(
    ModelSignature(
        "digits",
        "1.0.0",
        "classification",
        (TensorSpec("image", "FP32", (-1, 1, 8, 8)),),
        (TensorSpec("logits", "FP32", (-1, 10)),),
    ),
    target="intel-nuc",
    precision="int8",
    license="Apache-2.0",
    model=Digest.of(b"model"),
    materials={"source": Digest.of(b"source"), "calibration": Digest.of(b"calibration")},
    builders=(BuiltBy("onnx", ONNX.digest, ONNX.lock.read_text()),),
    params={"method": "minmax"},
    edgectl_version="0.1.0",
)


@pytest.mark.parametrize("built", [BUILT, replace(BUILT, license="", builders=())])
def test_the_bill_of_materials_is_cyclonedx(built: Built) -> None:
    text = json.dumps(bill_of_materials(built))
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None


def test_the_bill_of_materials_names_data_and_packages() -> None:
    bom = bill_of_materials(BUILT)
    refs = {component["bom-ref"] for component in bom["components"]}
    assert "pkg:pypi/onnxruntime@1.31.1" in refs
    assert f"calibration:{Digest.of(b'calibration')}" in refs
    (dependency,) = bom["dependencies"]
    assert set(dependency["dependsOn"]) == refs


def test_the_same_variant_has_the_same_serial_number() -> None:
    assert bill_of_materials(BUILT) == bill_of_materials(BUILT)
    other = bill_of_materials(replace(BUILT, precision="fp32"))
    assert other["serialNumber"] != bill_of_materials(BUILT)["serialNumber"]


def test_provenance_names_every_material() -> None:
    made = provenance(BUILT)
    definition: dict[str, Any] = made["buildDefinition"]
    for address in (definition["buildType"], made["runDetails"]["builder"]["id"]):
        assert urlparse(address).scheme == "https"
    named = {d["name"]: d["digest"]["sha256"] for d in definition["resolvedDependencies"]}
    assert named == {
        "source": Digest.of(b"source").hex,
        "calibration": Digest.of(b"calibration").hex,
        "builder/onnx": ONNX.digest.hex,
    }
    assert definition["externalParameters"]["target"] == "intel-nuc"
    assert provenance(BUILT) == made


def test_an_evaluation_carries_the_baseline() -> None:
    raw = {
        "metrics": {"accuracy": 0.97},
        "samples": 1,
        "sizeBytes": 1,
        "host": {"architecture": "amd64", "cpu": "c", "engine": "e", "providers": ["p"]},
    }
    report = report_for(raw, target="t", architecture="arm64", precision="int8")
    assert evaluation(report, {"accuracy": 0.98})["baseline"] == {"accuracy": 0.98}
    assert "baseline" not in evaluation(report, None)


def test_provenance_says_how_ranges_were_taken() -> None:
    said = {"method": "minmax", "asked": "entropy"}
    made = provenance(replace(BUILT, calibrations={"optimize": said}))
    byproducts = made["runDetails"]["byproducts"]
    assert byproducts == [{"name": "calibration/optimize", "annotations": said}]
