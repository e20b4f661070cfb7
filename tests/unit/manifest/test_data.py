"""Data sets held against their model before anything is built, from the headers of their arrays."""

from __future__ import annotations

import io
import zipfile
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from edgectl.manifest.load import load_project
from edgectl.manifest.npz import ArrayHeader, read_headers
from edgectl.manifest.problem import ManifestErrors
from tests.unit.manifest.projects import BASE_MODEL, make_project

if TYPE_CHECKING:
    from pathlib import Path

ROWS = np.zeros((4, 1, 8, 8), np.float32)
LOGITS = np.zeros((4, 10), np.float32)
LABELS = np.zeros(4, np.int64)
MODEL = BASE_MODEL + "  evaluation: {path: data/evaluation.npz}\n"
AT = {"calibration": "10:23", "evaluation": "12:22", "golden": "11:18"}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    root = make_project(tmp_path)
    (root / "base.yaml").write_text(MODEL)
    return root


def npy(header: bytes, body: bytes = b"", version: bytes = b"\x01\x00") -> bytes:
    length = len(header).to_bytes(2 if version == b"\x01\x00" else 4, "little")
    return b"\x93NUMPY" + version + length + header + body


def archive(data: bytes, name: str = "image.npy") -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as file:
        file.writestr(name, data)
    return made.getvalue()


def test_data_that_fits_is_no_problem(project: Path) -> None:
    assert load_project(project, data=True).models


@pytest.mark.parametrize(
    ("section", "arrays", "said"),
    [
        ("calibration", {"imagee": ROWS}, "(write 'image' for 'imagee' in the data"),
        ("calibration", {"image": ROWS.astype(np.float64)}, "FP64 [4, 1, 8, 8], spec.inputs[0]"),
        ("calibration", {"image": ROWS.reshape(4, 64)}, "array 'image' is FP32 [4, 64]"),
        ("calibration", {"image": ROWS[:0]}, "has no rows"),
        ("calibration", {"image": np.array([{}], object)}, "array 'image' holds Python objects"),
        ("evaluation", {"image": ROWS}, "has no array of labels 'label'; it has 'image'"),
        ("evaluation", {"image": ROWS, "label": LABELS[:3]}, "has labels of shape [3]"),
        ("golden", {"image": ROWS}, "has no expected outputs"),
        ("golden", {"image": ROWS, "logit": LOGITS},
         "array 'logit' is neither an input nor an output (did you mean 'logits'?)"),
        ("golden", {"image": ROWS, "logits": LOGITS[:, :9]},
         "array 'logits' has shape [4, 9], spec.outputs[0] declares [-1, 10]"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_told_at_the_file(
    project: Path, section: str, arrays: dict[str, Any], said: str
) -> None:
    np.savez(project / f"data/{section}.npz", **arrays)
    with pytest.raises(ManifestErrors) as caught:
        load_project(project, data=True)
    (problem,) = caught.value.problems
    assert str(problem).startswith(
        f"{project}/base.yaml:{AT[section]}: spec.{section}.path: {project}/data/{section}.npz"
    )
    assert said in str(problem)


def test_rows_fill_the_batches_that_the_inputs_fix(project: Path) -> None:
    (project / "base.yaml").write_text(MODEL.replace("[-1, 1, 8, 8]", "[3, 1, 8, 8]"))
    with pytest.raises(
        ManifestErrors, match="4 rows, which do not fill batches of the 3"
    ) as caught:
        load_project(project, data=True)
    assert len(caught.value.problems) == 3
    assert caught.value.problems[0].suggestion == "leave out 1 rows or add 2"


def test_headers_are_what_numpy_reads(tmp_path: Path) -> None:
    arrays = {
        name: np.zeros((2, 3), name)
        for name in ("bool", "u1", "u2", "u4", "u8", "i1", "i2", "i4", "i8", "f2", "f4", "f8")
    }
    arrays |= {"big": np.zeros((2, 3), ">f4"), "bytes": np.zeros((2, 3), "S7")}
    arrays |= {"text": np.zeros((2, 3), "U5"), "turned": np.zeros((3, 2), "f4").T}
    arrays |= {"complex": np.zeros((2, 3), "c8"), "time": np.zeros((2, 3), "M8[s]")}
    np.savez_compressed(tmp_path / "all.npz", **arrays)  # type: ignore[arg-type]
    found = read_headers(tmp_path / "all.npz")
    assert {name: header.shape for name, header in found.items()} == dict.fromkeys(arrays, (2, 3))
    assert [header.datatype for header in found.values()] == [
        "BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64", "FP16",
        "FP32", "FP64", "FP32", "BYTES", "BYTES", "FP32", "c8", "M8",
    ]  # fmt: skip
    assert found["big"] == ArrayHeader("FP32", (2, 3))


GOOD = b"{'descr': '<f4', 'fortran_order': False, 'shape': (2,)}"


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"hello", "not a zip"),
        (archive(b""), "no array of numpy's format"),
        (archive(b"hello", "readme.txt"), "'readme.txt' in it is no array"),
        (archive(npy(GOOD, bytes(7))), "does not fill its"),
        (archive(npy(GOOD.replace(b"2,", b"-2,"), bytes(8))), "the shape (-2,)"),
        (archive(npy(GOOD.replace(b"2,", b"True,"), bytes(4))), "the shape (True,)"),
        (archive(npy(GOOD.replace(b"(2,)", b"2"), bytes(8))), "the shape 2"),
        (archive(npy(GOOD.replace(b"'<f4'", b"[('a', '<f4')]"), bytes(8))), "objects or records"),
        (archive(npy(b"(" * 5000)), "broken header"),
        (archive(npy(b"[]")), "broken header"),
        (archive(npy(b"exit()")), "broken header"),
        (archive(npy(b"\xff")), "broken header"),
        (archive(npy(b" " * 20_000, version=b"\x02\x00")), "has 20000 bytes"),
        (archive(npy(GOOD))[:-30], "not a zip"),
    ],
)
def test_what_is_no_npz_is_refused_unread(tmp_path: Path, data: bytes, said: str) -> None:
    (tmp_path / "x.npz").write_bytes(data)
    with pytest.raises(ValueError, match=r".") as caught:
        read_headers(tmp_path / "x.npz")
    assert said in str(caught.value)
