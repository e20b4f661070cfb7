from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from edgectl.build.builder import find_builder, find_builders, load_builder, source_formats
from edgectl.errors import ToolchainError
from edgectl.manifest.model import Source
from tests.support.builders import make_builder

if TYPE_CHECKING:
    from pathlib import Path

    from edgectl.digest import Digest

_HEAD = "protocol: 1\nname: toy\n"
_IMPORTER = f"{_HEAD}actions: [import]\nformats: [a]\nengines: []\n"


def test_shipped_builders_are_found() -> None:
    assert {builder.name for builder in find_builders()} >= {"onnx", "sklearn"}
    assert find_builder("onnx").formats == ("onnx",)
    assert find_builder("sklearn").formats == ("sklearn",)
    assert "evaluate" in find_builder("onnx").actions
    assert find_builder("onnx").engines == ("onnxruntime",)
    assert find_builder("sklearn").engines == ()


def test_the_users_builder_comes_first(tmp_path: Path) -> None:
    mine = make_builder(tmp_path / "builders", "pass", name="onnx")
    assert find_builder("onnx", repository=tmp_path).directory == mine.directory
    assert find_builder("onnx").directory != mine.directory
    names = [builder.name for builder in find_builders(repository=tmp_path)]
    assert sorted(names) == sorted(set(names))


@pytest.mark.parametrize("file", ["builder.yaml", "requirements.lock", "build.py"])
def test_the_digest_covers_every_file(tmp_path: Path, file: str) -> None:
    builder = make_builder(tmp_path, "pass")
    before, lock_before = builder.digest, builder.lock_digest
    path = builder.directory / file
    path.write_text(path.read_text() + "\n# changed\n")
    after = load_builder(builder.directory)
    assert after.digest != before
    assert (after.lock_digest != lock_before) == (file == "requirements.lock")
    assert builder.digest == before, "what a plan was made of changed under it"


@pytest.mark.parametrize("module", ["folding.py", "passes/fusing.py"])
def test_the_digest_covers_every_module(tmp_path: Path, module: str) -> None:
    def digest(text: str | None) -> Digest:
        if text is not None:
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)
        return load_builder(builder.directory).digest

    builder = make_builder(tmp_path, "pass")
    path = builder.directory / module
    digests = [digest(None), digest("a = 1\n"), digest("a = 2\n")]
    path.rename(path.with_name("renamed.py"))
    digests.append(digest(None))
    assert len(set(digests)) == 4


@pytest.mark.parametrize("path", ["__pycache__/build.py", ".venv/site.py", ".hidden.py", "README"])
def test_the_digest_covers_nothing_else(tmp_path: Path, path: str) -> None:
    builder = make_builder(tmp_path, "pass")
    before = builder.digest
    (builder.directory / path).parent.mkdir(exist_ok=True)
    (builder.directory / path).write_text("a = 1\n")
    assert load_builder(builder.directory).digest == before


def test_an_unknown_builder_names_the_known_ones() -> None:
    with pytest.raises(ToolchainError, match="no builder 'caffe'") as caught:
        find_builder("caffe")
    assert "onnx" in str(caught.value.hint)


@pytest.mark.parametrize(
    ("spec", "problem"),
    [
        ("[", r"builder\.yaml:1:2: not YAML"),
        ("protocol: 1\nprotocol: 1", r"builder\.yaml:2:1: .*'protocol'"),
        ("- a", "not one document that is a mapping"),
        ("", "not one document that is a mapping"),
        ("protocol: 1\n---\nprotocol: 1", "not one document that is a mapping"),
        ("protocol: 2\nname: toy", "protocol 2"),
        ("protocol: 1\nname: other", "not the folder's name"),
        ("protocol: 1\nname: toy\nactions: import\nformats: []", "actions is not a list"),
        ("protocol: 1\nname: toy\nactions: []\nformats: []", "engines is not a list"),
        (f"{_HEAD}actions: [fly]\nformats: []\nengines: []", "unknown actions fly"),
        (f"{_HEAD}actions: [importt]\nformats: [a]\nengines: []", "did you mean 'import'"),
        (f"{_IMPORTER}take: [b]", r"unknown key 'take' \(did you mean 'takes'\?\)"),
        (f"{_IMPORTER}1: b", "YAML reads the key 1 as a number"),
        (f"{_IMPORTER}takes: b", "takes is not a list"),
        (f"{_IMPORTER}directories: [b]", "directories names b, which it neither imports nor"),
        (f"{_IMPORTER}takes: [B_b]", "format 'B_b' is not of lowercase"),
        (f"{_IMPORTER}compiles: onnxruntime", "compiles must name"),
        (f"{_IMPORTER}leaves: {{evaluate: because}}", "leaves is not a mapping of some"),
        (f"{_HEAD}actions: [import]\nformats: []\nengines: []", "formats are what"),
        (f"{_HEAD}actions: [optimize]\nformats: [a]\nengines: [e]", "formats are what"),
        (f"{_HEAD}actions: [import]\nformats: [a]\nengines: [e]", "engines are what"),
        (f"{_HEAD}actions: [evaluate]\nformats: []\nengines: []", "engines are what"),
        (f"{_HEAD}actions: [compile]\nformats: []\nengines: [e]", "compiles must name"),
    ],
)
def test_a_malformed_builder_is_refused(tmp_path: Path, spec: str, problem: str) -> None:
    builder = make_builder(tmp_path, "pass")
    (builder.directory / "builder.yaml").write_text(spec)
    with pytest.raises(ToolchainError, match=problem) as caught:
        load_builder(builder.directory)
    assert "builder" in caught.value.message
    assert "docs/builders.md" in (caught.value.hint or "")


def test_manifests_have_the_formats_of_every_builder(tmp_path: Path) -> None:
    shipped = source_formats(find_builders())
    assert shipped.directories == {"coreml", "huggingface", "onnx", "openvino", "tensorflow"}
    folder = make_builder(tmp_path / "builders", "pass", name="caffe").directory
    spec = folder / "builder.yaml"
    spec.write_text(spec.read_text() + "takes: [prototxt]\ndirectories: [caffe]\n")
    mine = source_formats(find_builders(repository=tmp_path))
    assert mine.names - shipped.names == {"caffe", "prototxt"}
    assert mine.directories - shipped.directories == {"caffe"}


def test_the_manifests_reference_names_the_formats_of_the_shipped_builders() -> None:
    said = Source.model_fields["format"].description or ""
    assert set(re.findall(r"[a-z]+", said)) >= source_formats(find_builders()).names


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    builder = make_builder(tmp_path, "pass")
    builder.lock.unlink()
    with pytest.raises(ToolchainError, match=r"it has no requirements\.lock"):
        load_builder(builder.directory)


def test_a_file_in_a_loop_of_links_is_named(tmp_path: Path) -> None:
    builder = make_builder(tmp_path, "pass")
    (builder.directory / "one.py").symlink_to("two.py")
    (builder.directory / "two.py").symlink_to("one.py")
    with pytest.raises(ToolchainError, match=r"'toy' cannot be read: .*links"):
        _ = load_builder(builder.directory).digest


def test_a_file_that_goes_before_it_is_hashed_is_named(tmp_path: Path) -> None:
    builder = make_builder(tmp_path, "pass")
    builder.script.unlink()
    with pytest.raises(ToolchainError, match=r"'toy' cannot be read: .*build\.py") as caught:
        _ = builder.digest
    assert "docs/builders.md" in (caught.value.hint or "")
