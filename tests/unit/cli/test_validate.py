from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner, Result

from edgectl.cli.root import root
from edgectl.errors import ToolchainError
from tests.support.builders import make_builder
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
    counts = {"models": 1, "targets": 0, "fleets": 0}
    said = ", ".join(f"{noun}: {count}" for noun, count in counts.items())
    assert result.stdout == f"{project}/edgectl.yaml: valid ({said})\n"
    machine = json.loads(run("validate", "-C", project, "-o", "json").stdout)
    assert machine == {"valid": True, "problems": [], **counts}


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
    assert [each["field"] for each in value["problems"]] == ["spec.tusk"]
    assert value["problems"][0] == {
        "path": f"{project}/base.yaml",
        "line": 6,
        "column": 3,
        "field": "spec.tusk",
        "message": "unknown field",
        "suggestion": "did you mean 'task'?",
    }


def test_a_builder_of_the_project_adds_a_format(project: Path) -> None:
    model = project / "base.yaml"
    model.write_text(model.read_text().replace("format: onnx", "format: lightgbm"))
    assert "spec.source.format: no builder reads" in run("validate", "-C", project).stderr
    make_builder(project / "builders", "pass", name="lightgbm")
    assert run("validate", "-C", project).exit_code == 0
    (project / "builders/lightgbm/builder.yaml").write_text("protocol: 7\n")
    result = run("validate", "-C", project)
    assert result.exit_code == ToolchainError.exit_code
    assert "builders/lightgbm/builder.yaml: protocol 7: this edgectl speaks 1" in result.stderr
