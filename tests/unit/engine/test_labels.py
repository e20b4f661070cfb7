from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from edgectl.engine.errors import InputError
from edgectl.engine.labels import Sample, read_samples

if TYPE_CHECKING:
    from pathlib import Path


def _labels(directory: Path, text: str) -> None:
    (directory / "labels.csv").write_text(text, encoding="utf-8")


def test_reads_the_table(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "ä,b.png").write_bytes(b"")
    _labels(tmp_path, 'label,file,note\nleft,"sub/ä,b.png",x\n')
    assert read_samples(tmp_path) == [Sample(tmp_path / "sub" / "ä,b.png", "left")]


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("", "must have the columns"),
        ("file,label\n", "at least one row"),
        ("name,label\na.png,left\n", "must have the columns"),
        ("file,label\na.png\n", "line 2: file or label is empty"),
        ("file,label\nabsent.png,left\n", "line 2: no file 'absent.png' in here"),
        ("file,label\n../out.png,left\n", "line 2: no file '../out.png' in here"),
        ('file,label\n"a.png,left\n', "cannot read"),
    ],
)
def test_refuses_bad_tables(tmp_path: Path, table: str, message: str) -> None:
    directory = tmp_path / "samples"
    directory.mkdir()
    (tmp_path / "out.png").write_bytes(b"")
    (directory / "a.png").write_bytes(b"")
    _labels(directory, table)
    with pytest.raises(InputError) as caught:
        read_samples(directory)
    assert message in str(caught.value)


def test_refuses_links_that_lead_out(tmp_path: Path) -> None:
    directory = tmp_path / "samples"
    directory.mkdir()
    (tmp_path / "secret.png").write_bytes(b"")
    (directory / "a.png").symlink_to(tmp_path / "secret.png")
    _labels(directory, "file,label\na.png,left\n")
    with pytest.raises(InputError, match="no file"):
        read_samples(directory)


def test_a_missing_table_is_one_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot read"):
        read_samples(tmp_path)
