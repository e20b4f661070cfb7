"""Files of good and bad manifests with what must be said of them: a new case is a new file."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from edgectl.manifest.document import KINDS
from edgectl.manifest.load import load_project
from edgectl.manifest.problem import ManifestErrors
from edgectl.manifest.schema import combined_schema, kind_schema, schemas
from edgectl.manifest.yaml import read_documents
from tests.unit.manifest.projects import make_project

ROOT = Path(__file__).parents[3]
VECTORS = ROOT / "tests/vectors/manifests"
GOOD = sorted(VECTORS.glob("good/*.yaml"))
BAD = sorted(VECTORS.glob("bad/*/*.yaml"))
SHIPPED = sorted(
    path
    for path in (ROOT / "manifests").rglob("*.yaml")
    if path.read_text(encoding="utf-8").lstrip("#").count("apiVersion: edgectl.dev/")
)


def documents(path: Path) -> list[Any]:
    nodes, problems = read_documents(path)
    assert not problems
    return [node.value for node in nodes if node.value.get("apiVersion") != "v1"]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(make_project(tmp_path / "project"))
    return Path()


@pytest.mark.parametrize("case", GOOD, ids=lambda path: path.stem)
def test_good_manifests_load(case: Path, project: Path) -> None:
    shutil.copy(case, project / "case.yaml")
    manifests = load_project(project)
    ours = [("case.yaml", each["metadata"]["name"]) for each in documents(case)]
    everything = [*manifests.models.values(), *manifests.targets.values()]
    loaded = [
        (str(each.origin.path), each.name) for each in [*everything, *manifests.fleets.values()]
    ]
    assert ours
    assert set(ours) <= set(loaded)


@pytest.mark.parametrize("case", BAD, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_bad_manifests_say_what_is_wrong_and_where(case: Path, project: Path) -> None:
    shutil.copy(case, project / "case.yaml")
    with pytest.raises(ManifestErrors) as caught:
        load_project(project)
    said = "".join(f"{problem}\n" for problem in caught.value.problems)
    assert said == case.with_suffix(".txt").read_text(encoding="utf-8")


def test_every_expectation_has_its_case() -> None:
    assert sorted(path.with_suffix(".yaml") for path in VECTORS.rglob("*.txt")) == BAD


@pytest.mark.parametrize("name", schemas())
def test_schemas_are_schemas(name: str) -> None:
    schema = schemas()[name]
    Draft202012Validator.check_schema(schema)
    assert json.loads(json.dumps(schema)) == schema


@pytest.mark.parametrize("path", [*SHIPPED, *GOOD], ids=lambda path: path.stem)
def test_schemas_accept_what_is_shipped(path: Path) -> None:
    found = documents(path)
    assert found
    for document in found:
        Draft202012Validator(kind_schema(document["kind"])).validate(document)
        Draft202012Validator(combined_schema()).validate(document)


@pytest.mark.parametrize("path", sorted(VECTORS.glob("bad/fields/*.yaml")), ids=lambda p: p.stem)
def test_schemas_refuse_wrong_fields(path: Path) -> None:
    for document in documents(path):
        assert not Draft202012Validator(combined_schema()).is_valid(document)
        if document.get("kind") in KINDS:
            assert not Draft202012Validator(kind_schema(document["kind"])).is_valid(document)


def test_the_reference_project_loads() -> None:
    manifests = load_project(ROOT / "manifests")
    assert {name for name, _ in manifests.models} >= {"digits", "tumour"}
    assert manifests.fleets["shopfloor"].spec.targets == (
        "intel-nuc",
        "raspberry-pi-5",
        "jetson-orin-nano",
    )
