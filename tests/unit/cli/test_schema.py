from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from edgectl.cli.root import root
from edgectl.manifest.document import KINDS
from edgectl.manifest.schema import combined_schema, kind_schema, schemas


@pytest.mark.parametrize("kind", [*KINDS, "model"])
def test_the_schema_of_a_kind_is_printed(kind: str) -> None:
    result = CliRunner().invoke(root, ["schema", kind])
    assert result.exit_code == 0
    assert json.loads(result.stdout) == kind_schema(kind.capitalize())


def test_the_schema_of_any_manifest_is_printed() -> None:
    result = CliRunner().invoke(root, ["schema"])
    assert json.loads(result.stdout) == combined_schema()


def test_schemas_are_written_to_a_directory(tmp_path: Path) -> None:
    result = CliRunner().invoke(root, ["schema", "--output-dir", str(tmp_path / "new")])
    assert result.exit_code == 0
    written = {path.name: json.loads(path.read_text()) for path in (tmp_path / "new").iterdir()}
    assert written == schemas()
    assert sorted(map(Path, result.stdout.split())) == sorted((tmp_path / "new").iterdir())


def test_the_schema_of_one_kind_is_written_to_a_directory(tmp_path: Path) -> None:
    CliRunner().invoke(root, ["schema", "Fleet", "--output-dir", str(tmp_path)])
    assert [path.name for path in tmp_path.iterdir()] == ["fleet.json"]


def test_a_directory_that_cannot_be_written_is_one_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    result = CliRunner().invoke(root, ["schema", "--output-dir", str(tmp_path / "file/below")])
    assert result.exit_code == 19
    assert "Next: " in result.stderr


def test_the_choices_of_the_command_are_the_kinds() -> None:
    result = CliRunner().invoke(root, ["schema", "Modle"])
    assert result.exit_code == 64
    assert all(kind.lower() in result.stderr.lower() for kind in KINDS)
