"""The wheel works away from the checkout: built, installed into an empty environment, and used."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import edgectl

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.slow


def attempt(*command: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run without anything of this environment that could lend the command a module."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "VIRTUAL"))}
    return subprocess.run(
        [*map(str, command)], cwd=cwd, env=environment, check=False, capture_output=True, text=True
    )


def run(*command: str | Path, cwd: Path) -> str:
    result = attempt(*command, cwd=cwd)
    assert result.returncode == 0, f"{command}\n{result.stdout}\n{result.stderr}"
    return result.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built by the pinned backend of this environment."""
    built = tmp_path_factory.mktemp("dist")
    uv = Path(sys.executable).with_name("uv")
    run(uv, "build", "--quiet", "--wheel", "--no-build-isolation", "--python", sys.executable,
        "--out-dir", built, cwd=ROOT)  # fmt: skip
    (path,) = built.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The `bin` of an empty environment that the wheel was installed into, far from the checkout.

    The dependencies come from the lock, so that the test means the same next year.
    """
    environment = tmp_path_factory.mktemp("away") / "env"
    uv = Path(sys.executable).with_name("uv")
    run(uv, "venv", "--quiet", "--python", sys.executable, environment, cwd=environment.parent)
    run(uv, "pip", "install", "--quiet", "--python", environment / "bin/python",
        "--constraint", ROOT / "requirements/demo.txt", wheel, cwd=environment.parent)  # fmt: skip
    return environment / "bin"


def test_the_wheel_holds_what_the_commands_look_for(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    inside = {name.removeprefix("edgectl/") for name in names if name.startswith("edgectl/")}
    assert {"_builders/onnx/build.py", "_builders/onnx/requirements.lock"} <= inside
    assert {"_builders/sklearn/build.py", "_targets/intel-nuc.yaml", "py.typed"} <= inside
    assert any(name.startswith("_templates/") for name in inside)
    tops = {name.split("/")[0] for name in names}
    assert tops == {"edgectl", f"edgectl-{edgectl.__version__}.dist-info"}


def test_every_module_of_the_checkout_is_in_the_wheel(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    modules = {str(path.relative_to(ROOT)) for path in (ROOT / "edgectl").rglob("*.py")}
    assert modules <= names


def test_the_command_runs_away_from_the_checkout(installed: Path, tmp_path: Path) -> None:
    assert edgectl.__version__ in run(installed / "edgectl", "--version", cwd=tmp_path)
    text = run(installed / "edgectl", "--help", cwd=tmp_path)
    assert "apply" in text
    where = run(installed / "python", "-c", "import edgectl; print(edgectl.__file__)", cwd=tmp_path)
    assert Path(where.strip()).is_relative_to(installed.parent)


def test_every_verb_explains_itself(installed: Path, tmp_path: Path) -> None:
    """Help needs no extra: each verb imports only what `pip install edgectl` brings."""
    from edgectl.cli.root import VERBS

    for verb in VERBS:
        assert "Usage:" in run(installed / "edgectl", verb, "--help", cwd=tmp_path)


def test_schemas_come_out_of_the_wheel(installed: Path, tmp_path: Path) -> None:
    run(installed / "edgectl", "schema", "--output-dir", tmp_path / "schemas", cwd=tmp_path)
    schemas = [json.loads(path.read_text()) for path in (tmp_path / "schemas").glob("*.json")]
    assert len(schemas) >= 4
    assert all("$schema" in schema for schema in schemas)


def test_manifests_are_validated_with_the_profiles_of_the_wheel(
    installed: Path, tmp_path: Path
) -> None:
    """The repository's own profiles are left out, so those inside the wheel have to be found."""
    repository = tmp_path / "manifests"
    shutil.copytree(
        ROOT / "manifests", repository, ignore=shutil.ignore_patterns("training", "recipes")
    )
    for profile in (repository / "targets").iterdir():
        profile.unlink()
    run(installed / "edgectl", "validate", "-C", repository, cwd=tmp_path)


def test_a_verb_whose_extra_is_missing_says_what_to_install(
    installed: Path, tmp_path: Path
) -> None:
    done = attempt(installed / "edgectl", "serve", "--state", tmp_path, cwd=tmp_path)
    assert done.returncode == 20
    assert "pip install 'edgectl[device]'" in done.stderr
