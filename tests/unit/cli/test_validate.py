from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner, Result

from edgectl.cli.root import root
from tests.unit.manifest.projects import make_project

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return make_project(tmp_path / "project")


def run(*arguments: object) -> Result:
    return CliRunner().invoke(root, [*map(str, arguments)])


def test_a_valid_project_is_said_to_be_valid(project: Path) -> None:
    result = run("validate", "-C", project)
    assert result.exit_code == 0
    assert result.stdout == f"{project}/edgectl.yaml: valid (models: 1, targets: 17, fleets: 0)\n"
    machine = json.loads(run("validate", "-C", project, "-o", "json").stdout)
    assert machine == {"valid": True, "problems": [], "models": 1, "targets": 17, "fleets": 0}


def test_problems_are_told_with_exit_code_3(project: Path) -> None:
    (project / "bad.yaml").write_text("a: [")
    result = run("validate", "-C", project)
    assert (result.exit_code, result.stdout) == (3, "")
    assert f"1 problem in the manifests:\n  {project}/bad.yaml:1:5: not YAML" in result.stderr
    assert "Next: " in result.stderr


def test_problems_as_json(project: Path) -> None:
    (project / "base.yaml").write_text((project / "base.yaml").read_text().replace("task", "tusk"))
    result = run("validate", "-C", project, "-o", "json")
    assert (result.exit_code, result.stderr) == (3, "")
    value: dict[str, Any] = json.loads(result.stdout)
    assert value["valid"] is False
    assert [each["field"] for each in value["problems"]] == ["spec.task", "spec.tusk"]
    assert value["problems"][1] == {
        "path": f"{project}/base.yaml",
        "line": 6,
        "column": 3,
        "field": "spec.tusk",
        "message": "unknown field",
        "suggestion": "did you mean 'task'?",
    }
