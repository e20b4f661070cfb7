"""Digests of files and directories."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from edgectl.digest import Digest

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A model's directory, with another one beside it."""
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "weights").write_bytes(b"other weights")
    directory = tmp_path / "model"
    (directory / "variables").mkdir(parents=True)
    (directory / "graph.pb").write_bytes(b"graph")
    (directory / "variables" / "weights").write_bytes(b"weights")
    return directory


def test_a_directory_has_the_digest_of_its_files(model: Path) -> None:
    files = {"graph.pb": Digest.of(b"graph"), "variables/weights": Digest.of(b"weights")}
    (model / "empty").mkdir()
    (model / "graph.pb").chmod(0o700)
    assert Digest.of_tree(model) == Digest.of_files(files)


def test_a_link_to_a_file_counts_as_the_file(model: Path) -> None:
    (model / "copy").write_bytes(b"weights")
    copied = Digest.of_tree(model)
    (model / "copy").unlink()
    (model / "copy").symlink_to("variables/weights")
    assert Digest.of_tree(model) == copied


def test_what_is_behind_a_link_to_a_directory_counts(model: Path) -> None:
    digests = {Digest.of_tree(model)}
    (model / "assets").symlink_to("variables")
    digests.add(Digest.of_tree(model))
    (model / "variables" / "weights").write_bytes(b"new weights")
    digests.add(Digest.of_tree(model))
    (model / "assets").unlink()
    (model / "more").mkdir()
    (model / "assets").symlink_to("more")
    digests.add(Digest.of_tree(model))
    assert len(digests) == 4


def test_links_in_a_circle_have_an_end(model: Path) -> None:
    (model / "variables" / "again").symlink_to(model / "variables")
    assert Digest.of_tree(model) == Digest.of_tree(model)


@pytest.mark.parametrize(
    "target", ["../elsewhere", "../elsewhere/weights", "/dev/zero", "..", ".", "../absent"]
)
def test_a_link_that_leads_out_is_refused(model: Path, target: str) -> None:
    (model / "variables" / "link").symlink_to(model / target)
    with pytest.raises(OSError, match="it holds 'variables/link', a link that leads out"):
        Digest.of_tree(model)


@pytest.mark.parametrize("kind", ["pipe", "link to nothing", "link to itself"])
def test_what_is_no_file_is_refused(model: Path, kind: str) -> None:
    if kind == "pipe":
        os.mkfifo(model / "odd")
    else:
        (model / "odd").symlink_to("odd" if kind == "link to itself" else "absent")
    with pytest.raises(OSError, match="it holds 'odd', which is neither a file nor a directory"):
        Digest.of_tree(model)


@pytest.mark.parametrize("where", ["", "deeper"])
def test_a_name_that_is_not_utf_8_is_refused(model: Path, where: str) -> None:
    (model / where).mkdir(exist_ok=True)
    (model / where / os.fsdecode(b"caf\xe9")).write_bytes(b"")
    with pytest.raises(OSError, match="whose name is not UTF-8: rename it") as caught:
        Digest.of_tree(model)
    assert str(caught.value).isprintable()


def test_a_directory_that_is_not_there_has_no_digest(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Digest.of_tree(tmp_path / "absent")
