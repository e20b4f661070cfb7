"""Rules of the source tree that hold for every file, so that no review has to look for them."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from importlinter.application.use_cases import SUCCESS, lint_imports
from importlinter.configuration import configure
from packaging.requirements import Requirement

import edgectl
from tests.support.tracked import tracked

ROOT = Path(__file__).parents[2]
MAX_LINES = 500

# Written in pieces, so that this file does not find itself.
FORBIDDEN = {
    "the path of one machine": re.compile(r"/(?:work|root|home/\w+)/" r"[\w.]"),
    "the address of a package index": re.compile(
        r"--(?:extra-)?index-url\s*=?\s*\w|--find-links\s*=?\s*[\w/]|file:///" r"opt/"
    ),
    "a private key": re.compile(r"-----BEGIN (?:RSA |EC )?PRIVATE " r"KEY-----"),
    "an unfinished merge": re.compile(r"^(?:<<<<<<<|>>>>>>>) ", re.MULTILINE),
}
PICKLED = (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")


def modules() -> list[Path]:
    return tracked("*.py")


@pytest.mark.parametrize("what", FORBIDDEN)
def test_no_file_holds(what: str) -> None:
    found = []
    for path in tracked():
        content = path.read_bytes()
        if b"\x00" in content or path == Path(__file__):
            continue
        if match := FORBIDDEN[what].search(content.decode(errors="replace")):
            found.append(f"{path.relative_to(ROOT)}: {match.group()}")
    assert not found, f"{what}: {found}"


def test_no_file_is_a_pickle() -> None:
    """Unpickling runs code; models and data come as ONNX, skops and npz without objects."""
    suspects = [path for path in tracked() if path.read_bytes()[:2] in PICKLED]
    suspects += tracked("*.pkl", "*.pickle", "*.joblib", "*.pt", "*.pth")
    assert not [path for path in suspects if not is_torchscript(path)]


def is_torchscript(path: Path) -> bool:
    """Whether it is a TorchScript archive, which libtorch reads without Python's unpickler."""
    if path.suffix != ".pt" or not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        names = {name.partition("/")[2] for name in archive.namelist()}
    return "constants.pkl" in names and any(name.startswith("code/") for name in names)


def test_every_module_says_what_it_owns() -> None:
    """But for test modules, whose tests say it, and the package files of the tests."""
    silent = [
        str(path.relative_to(ROOT))
        for path in modules()
        if not ast.get_docstring(ast.parse(path.read_bytes()))
    ]
    assert not [
        name for name in silent if not re.match(r"tests/(.+/)?(test_\w+|__init__)\.py$", name)
    ]


def test_modules_are_small() -> None:
    sizes = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in modules()}
    assert not {str(path): size for path, size in sizes.items() if size > MAX_LINES}


def test_modules_are_named_after_what_they_own() -> None:
    vague = {"utils", "util", "helpers", "helper", "common", "manager", "misc"}
    assert not [path for path in modules() if path.stem in vague or path.parent.name in vague]


def test_imports_run_one_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    configure()
    assert lint_imports("pyproject.toml", cache_dir=None, no_logo=True) == SUCCESS


DEVICE = """
import importlib, pkgutil, sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {blocked!r}:
            raise ModuleNotFoundError(f"a device has no {{name}}", name=name)

sys.meta_path.insert(0, Blocked())
for package in {packages!r}:
    parent = importlib.import_module(package)
    for module in pkgutil.walk_packages(parent.__path__, f"{{package}}."):
        try:
            importlib.import_module(module.name)
        except ModuleNotFoundError as error:
            if error.name not in {vendors!r}:
                raise
print("imported", len(sys.modules))
"""


def test_the_device_imports_without_build_dependencies() -> None:
    """Also what is imported indirectly, which the contracts leave to this test."""
    blocked = ("docker", "jinja2", "nacl", "onnx", "pydantic", "rich", "sigstore", "sklearn", "uv")
    vendors = ("coremltools", "tensorrt")  # on devices of theirs; not on every machine of ours
    packages = ("edgectl.engine", "edgectl.oci", "edgectl.serve", "edgectl.agent")
    code = DEVICE.format(blocked=blocked, vendors=vendors, packages=packages)
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, check=False, capture_output=True, text=True
    )
    assert result.stdout.startswith("imported "), result.stderr


def test_the_only_top_level_package_is_ours() -> None:
    """`builders/` and `templates/` are data: nothing of ours takes another top-level name."""
    packages = {path.parent for path in tracked("*/__init__.py")}
    tops = {path.relative_to(ROOT).parts[0] for path in packages}
    assert tops <= {"edgectl", "tests"}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"] == ["edgectl"]


def test_locks_pin_everything_by_hash() -> None:
    locks = tracked("requirements/*.txt", "builders/*/requirements.lock")
    assert locks
    for path in locks:
        text = path.read_text().replace("\\\n", " ")
        entries = [line for line in text.splitlines() if line and not line.startswith("#")]
        assert entries, path
        for entry in entries:
            assert re.match(
                r"[A-Za-z0-9._-]+(?:\[[\w,-]+\])?==\S+ .*--hash=sha256:[0-9a-f]{64}", entry
            ), f"{path.relative_to(ROOT)}: {entry[:60]}"


def test_locks_agree() -> None:
    """Installing the demo after the development tools, or before, changes no version."""
    dev, demo, bootstrap = (
        _pins(ROOT / "requirements" / name) for name in ("dev.txt", "demo.txt", "bootstrap.txt")
    )
    assert demo.items() <= dev.items()
    assert {name: bootstrap[name] for name in bootstrap.keys() & dev.keys()}.items() <= dev.items()


def _pins(path: Path) -> dict[str, set[str]]:
    pins: dict[str, set[str]] = {}
    for name, version in re.findall(r"^([A-Za-z0-9._-]+)==(\S+)", path.read_text(), re.MULTILINE):
        pins.setdefault(name, set()).add(version)
    return pins


def test_the_lock_covers_what_pyproject_asks_for() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    asked = list(project["dependencies"])
    for extra in project["optional-dependencies"].values():
        asked += extra
    pins = _pins(ROOT / "requirements" / "dev.txt")
    for requirement in map(Requirement, asked):
        versions = pins.get(requirement.name, set())
        assert any(requirement.specifier.contains(version) for version in versions), requirement


def test_the_version_is_one() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["version"] == edgectl.__version__
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.search(
        rf"^## \[(?:{re.escape(edgectl.__version__)}|Unreleased)\]", changelog, re.MULTILINE
    )
