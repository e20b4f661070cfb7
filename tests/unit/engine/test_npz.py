from __future__ import annotations

import io
import zipfile
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edgectl.engine.errors import InputError
from edgectl.engine.npz import read_npy, read_npz

if TYPE_CHECKING:
    from pathlib import Path


@settings(max_examples=50)
@given(
    array=hnp.arrays(
        st.sampled_from(["f4", ">f8", "i8", "u1", "?", "U3", "S2", "f2"]),
        hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4),
    ),
    fortran=st.booleans(),
    compressed=st.booleans(),
)
def test_reads_what_numpy_writes(
    tmp_path_factory: pytest.TempPathFactory, array: Any, fortran: bool, compressed: bool
) -> None:
    path = tmp_path_factory.mktemp("npz") / "a.npz"
    stored = np.asfortranarray(array) if fortran else array
    (np.savez_compressed if compressed else np.savez)(path, data=stored, other=np.arange(3))
    read = read_npz(path)
    assert list(read) == ["data", "other"]
    np.testing.assert_array_equal(read["data"], array)
    assert read["data"].dtype == array.dtype


@pytest.mark.parametrize("fortran", [False, True])
def test_reads_only_the_first_rows(tmp_path: Path, fortran: bool) -> None:
    array = np.arange(30).reshape(10, 3)
    np.savez(tmp_path / "a.npz", a=np.asfortranarray(array) if fortran else array)
    np.testing.assert_array_equal(read_npz(tmp_path / "a.npz", rows=2)["a"], array[:2])
    np.testing.assert_array_equal(read_npz(tmp_path / "a.npz", rows=99)["a"], array)


def test_refuses_a_zip_bomb_before_unpacking(tmp_path: Path) -> None:
    path = tmp_path / "bomb.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.npy", b"\0" * (8 << 20))
    assert path.stat().st_size < 20_000
    with pytest.raises(InputError, match="8388608 bytes unpacked, more than 1048576"):
        read_npz(path, max_bytes=1 << 20)


def test_refuses_a_member_that_unpacks_to_more_than_it_declares(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    np.save(buffer, np.zeros(100_000))
    path = tmp_path / "lie.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.npy", buffer.getvalue())
    size = len(buffer.getvalue()).to_bytes(4, "little")
    path.write_bytes(path.read_bytes().replace(size, (1128).to_bytes(4, "little")))
    with pytest.raises(InputError, match=r"lie\.npz is not a usable \.npz"):
        read_npz(path)


def test_never_unpickles(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", a=np.array([{"x": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(InputError, match="not plain numbers or text"):
        read_npz(tmp_path / "a.npz")


def test_refuses_an_array_that_claims_more_than_it_holds(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        buffer, {"descr": "<f8", "fortran_order": False, "shape": (1 << 40,)}
    )
    path = tmp_path / "a.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.npy", buffer.getvalue() + b"\0" * 8)
    with pytest.raises(InputError, match="does not fill"):
        read_npz(path)
    (tmp_path / "a.npy").write_bytes(buffer.getvalue())
    with pytest.raises(InputError, match="does not fill"):
        read_npy(tmp_path / "a.npy")


@pytest.mark.parametrize(
    ("descr", "shape"),
    [("<f8", (10**30, 0)), ("<f8", (-1, -1)), ("|V0", (3,)), ("<U0", (1 << 40,)), ("(2,)<f8", ())],
)
def test_refuses_shapes_that_numpy_cannot_make(
    tmp_path: Path, descr: str, shape: tuple[int, ...]
) -> None:
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        buffer, {"descr": descr, "fortran_order": False, "shape": shape}
    )
    size = 8 if shape == (-1, -1) else 16 if shape == () else 0
    path = tmp_path / "a.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.npy", buffer.getvalue() + b"\0" * size)
    with pytest.raises(InputError, match=r"a\.npz"):
        read_npz(path)


def test_refuses_compression_that_numpy_never_uses(tmp_path: Path) -> None:
    """Other decompressors raise other errors, and LZMA's asks for as much memory as it likes."""
    np.savez(tmp_path / "plain.npz", a=np.arange(50))
    with (
        zipfile.ZipFile(tmp_path / "plain.npz") as plain,
        zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_LZMA) as archive,
    ):
        archive.writestr("a.npy", plain.read("a.npy"))
    with pytest.raises(InputError, match="compress"):
        read_npz(tmp_path / "a.npz")


def test_refuses_other_members(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("../evil.sh", "x")
    with pytest.raises(InputError, match="is not an array"):
        read_npz(tmp_path / "a.npz")


def test_refuses_every_truncation(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "a.npz", a=np.arange(50))
    whole = (tmp_path / "a.npz").read_bytes()
    cut = tmp_path / "cut.npz"
    for length in range(0, len(whole), 11):
        cut.write_bytes(whole[:length])
        with pytest.raises(InputError, match=r"cut\.npz"):
            read_npz(cut)


def test_a_flipped_byte_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, a=np.arange(50))
    data = bytearray(path.read_bytes())
    data[data.index(np.arange(50).tobytes()) + 16] ^= 1
    path.write_bytes(data)
    with pytest.raises(InputError, match="CRC"):
        read_npz(path)


def test_reads_npy(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.arange(4.0))
    np.testing.assert_array_equal(read_npy(tmp_path / "a.npy"), np.arange(4.0))
    with pytest.raises(InputError, match="more than 10"):
        read_npy(tmp_path / "a.npy", max_bytes=10)
    with pytest.raises(InputError, match="cannot read"):
        read_npy(tmp_path / "absent.npy")
    with pytest.raises(InputError, match="cannot read"):
        read_npz(tmp_path / "absent.npz")
