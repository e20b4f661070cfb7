from __future__ import annotations

import gzip
import io
import os
import tarfile
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgectl.digest import Digest
from edgectl.errors import ConfigError, SourceError, StorageError
from edgectl.oci.descriptor import OCI_LAYER, OCI_LAYER_GZIP
from edgectl.oci.tar import build_layer, source_date_epoch

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    model = tmp_path / "model.onnx"
    model.write_bytes(b"weights" * 1000)
    tool = tmp_path / "tool"
    tool.write_bytes(b"#!/bin/sh\n")
    tool.chmod(0o700)
    model.chmod(0o600)
    return {"/models/digits/nuc/model.onnx": model, "/usr/bin/tool": tool}


@pytest.mark.parametrize("compress", [False, True])
def test_the_layer_is_what_its_digests_say(
    files: dict[str, Path], tmp_path: Path, compress: bool
) -> None:
    descriptor, diff_id = build_layer(files, tmp_path / "layer", compress=compress)
    data = (tmp_path / "layer").read_bytes()
    assert descriptor.media_type == (OCI_LAYER_GZIP if compress else OCI_LAYER)
    assert (descriptor.digest, descriptor.size) == (Digest.of(data), len(data))
    assert diff_id == Digest.of(gzip.decompress(data) if compress else data)


@pytest.mark.parametrize("compress", [False, True])
def test_entries_depend_on_contents_alone(
    files: dict[str, Path], tmp_path: Path, compress: bool
) -> None:
    first = build_layer(files, tmp_path / "first", compress=compress)
    for path in files.values():
        os.utime(path, (1, 1))
    backwards = dict(reversed(files.items()))
    assert build_layer(backwards, tmp_path / "second", compress=compress) == first
    with tarfile.open(tmp_path / "first") as tar:
        entries = {entry.name: entry for entry in tar}
    assert list(entries) == sorted(entries)
    assert {(e.uid, e.gid, e.uname, e.gname, e.mtime) for e in entries.values()} == {
        (0, 0, "", "", 0)
    }
    assert {name: oct(entry.mode) for name, entry in entries.items()} == {
        "models": "0o755",
        "models/digits": "0o755",
        "models/digits/nuc": "0o755",
        "models/digits/nuc/model.onnx": "0o644",
        "usr": "0o755",
        "usr/bin": "0o755",
        "usr/bin/tool": "0o755",
    }


def test_the_layer_is_the_same_everywhere(tmp_path: Path) -> None:
    """A known answer: another machine, Python or year must give this digest."""
    file = tmp_path / "file"
    file.write_bytes(b"hello\n")
    descriptor, diff_id = build_layer({"/a/file": file}, tmp_path / "layer")
    assert diff_id == descriptor.digest
    assert (
        str(descriptor.digest)
        == "sha256:f9b87550030c6af1778c81f67dd52f2475dc826ae50e270cba7a7787e6148892"
    )


def test_source_date_epoch(
    files: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    build_layer(files, tmp_path / "layer")
    with tarfile.open(tmp_path / "layer") as tar:
        assert {entry.mtime for entry in tar} == {1700000000}
    for wrong in ("yesterday", "-1", "9" * 11, "\u0663"):
        monkeypatch.setenv("SOURCE_DATE_EPOCH", wrong)
        with pytest.raises(ConfigError, match="not a number of seconds"):
            source_date_epoch()
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "9" * 10)
    build_layer(files, tmp_path / "far")


@pytest.mark.parametrize("name", ["relative", "/", "/a/../b", "/a//b", "/a/", "/a/./b", ""])
def test_paths_have_to_be_absolute_and_normal(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ValueError, match="not an absolute, normal path"):
        build_layer({name: tmp_path / "file"}, tmp_path / "layer")
    assert not (tmp_path / "layer").exists()


def test_a_file_cannot_be_a_directory_too(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    both = {"/a": tmp_path / "file", "/a/b": tmp_path / "file"}
    with pytest.raises(ValueError, match="both a file and a directory"):
        build_layer(both, tmp_path / "layer")


def test_a_missing_file_leaves_no_layer(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="absent"):
        build_layer({"/a": tmp_path / "absent"}, tmp_path / "layer")
    assert list(tmp_path.iterdir()) == []


def test_a_missing_directory_is_a_clear_error(files: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="nowhere"):
        build_layer(files, tmp_path / "nowhere" / "layer")


NAMES = st.text("abcü-_. ", min_size=1, max_size=60).filter(lambda name: name not in {".", ".."})


@given(st.dictionaries(NAMES, st.binary(max_size=2000), max_size=8))
def test_contents_survive(
    tmp_path_factory: pytest.TempPathFactory, contents: dict[str, bytes]
) -> None:
    directory = tmp_path_factory.mktemp("layer")
    files = {}
    for number, (name, content) in enumerate(contents.items()):
        (directory / str(number)).write_bytes(content)
        files[f"/d/{name}"] = directory / str(number)
    build_layer(files, directory / "layer")
    with tarfile.open(fileobj=io.BytesIO((directory / "layer").read_bytes())) as tar:
        read = {e.name: tar.extractfile(e).read() for e in tar if e.isfile()}  # type: ignore[union-attr]
    assert read == {f"d/{name}": content for name, content in contents.items()}
