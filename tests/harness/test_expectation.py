# SPDX-License-Identifier: GPL-2.0-or-later
"""A list of known translations is read as it was written, and every flaw in it is named."""

import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.expectation import MAX_ARRAY_BYTES, read_expectation
from kernel_model.errors import BadInput

pytestmark = pytest.mark.usefixtures("either_release")

SOUND: dict[str, Any] = {
    "va": np.array([0xC0000000, 0x1000, 0xC0400000], np.uint32),
    "pa": np.array([0, 0xFFFFFF000, 0x200000], np.uint64),
    "size": np.array([4 << 20, 4096, 2 << 20], np.uint32),
    "rights": np.array([2, 0x8006, 0], np.uint16),
    "absent": np.array([0x2000, 0, 0xC0600000], np.uint32),
}


def write(path: Path, **changes: Any) -> Path:
    arrays = {name: value for name, value in (SOUND | changes).items() if value is not None}
    np.savez(path / "known.npz", **arrays)
    return path / "known.npz"


def refusal(path: Path) -> str:
    with pytest.raises(BadInput) as caught:
        read_expectation(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert message.isprintable()
    return message


def test_rows_come_sorted_and_together(tmp_path: Path) -> None:
    known = read_expectation(write(tmp_path))
    assert len(known) == 3
    assert known.va.tolist() == [0x1000, 0xC0000000, 0xC0400000]
    assert known.pa.tolist() == [0xFFFFFF000, 0, 0x200000]
    assert known.size.tolist() == [4096, 4 << 20, 2 << 20]
    assert known.rights.tolist() == [0x8006, 2, 0]
    assert known.absent.tolist() == [0, 0x2000, 0xC0600000]


def test_absent_may_be_left_out_and_others_may_be_there(tmp_path: Path) -> None:
    known = read_expectation(write(tmp_path, absent=None, leaf=np.zeros((2, 2))))
    assert known.absent.size == 0


def test_no_mappings_at_all(tmp_path: Path) -> None:
    empty = {name: SOUND[name][:0] for name in ("va", "pa", "size", "rights")}
    assert len(read_expectation(write(tmp_path, **empty))) == 0


def test_the_last_page_and_compressed_and_big_endian_files(tmp_path: Path) -> None:
    path = tmp_path / "known.npz"
    np.savez_compressed(
        path,
        va=np.array([0xFFFFF000], ">u4"),
        pa=np.array([0x1000], ">u8"),
        size=np.array([4096]),
        rights=np.array([6]),
        absent=np.array([0xFFFFE000]),
    )
    known = read_expectation(path)
    assert (known.va[0], known.pa[0], known.rights[0]) == (0xFFFFF000, 0x1000, 6)


def row(name: str, index: int, value: int) -> dict[str, Any]:
    """The sound ``name`` with one value replaced, wide enough for any."""
    column = SOUND[name].astype(np.uint64)
    column[index] = value
    return {name: column}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"va": None}, "no array va"),
        ({"rights": None}, "no array rights"),
        ({"va": SOUND["va"].astype(np.int64)}, "va is int64: make it unsigned"),
        ({"pa": SOUND["pa"].astype(float)}, "pa.npy is float64"),
        ({"va": SOUND["va"].reshape(3, 1)}, "shape (3, 1)"),
        ({"va": np.uint32(1)}, "shape ()"),
        ({"size": SOUND["size"][:2]}, "differ in length (va 3, pa 3, size 2, rights 3)"),
        ({"size": -SOUND["size"].astype(np.int64)}, "size has -4194304"),
        ({"absent": np.array([-1])}, "absent has -1"),
        ({"absent": np.array([1.0])}, "absent.npy is float64"),
        ({"va": np.array([{}], object)}, "give a row of integers"),
        (row("va", 1, 0x1001), "va 0x1001 at va 0x00001001: align"),
        (row("va", 0, 0xC0001000), "va 0xc0001000 at va 0xc0001000: align"),
        (row("va", 1, 1 << 32), "32-bit"),
        (row("pa", 2, 0x201000), "pa 0x201000 at va 0xc0400000: align"),
        (row("pa", 1, 1 << 52), "at most 52 bits"),
        (row("size", 1, 8192), "size 0x2000 at va 0x00001000: give 4096"),
        (row("size", 1, 0), "size 0x0"),
        (row("rights", 0, 1), "rights 0x1 at va 0xc0000000: use bits 1, 2, 15"),
        (row("va", 1, 0xC0000000), "two rows translate 0xc0000000"),
        (row("va", 1, 0xC0000000 + 4096), "two rows translate 0xc0001000"),
        (row("absent", 0, 1 << 32), "absent 0x100000000"),
        (row("absent", 1, 0x1FFF), "0x00001fff is both absent and mapped"),
        (row("absent", 1, 0xC05FFFFF), "0xc05fffff is both absent and mapped"),
    ],
)
def test_a_wrong_list_is_named(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    assert said in refusal(write(tmp_path, **changes))


def test_files_that_are_no_npz(tmp_path: Path) -> None:
    path = tmp_path / "known.npz"
    assert "No such file" in refusal(path)
    assert "not a regular file" in refusal(tmp_path)
    for content in (b"", b"PK\x03\x04", b"\x93NUMPY", bytes(100)):
        path.write_bytes(content)
        assert "not a readable .npz" in refusal(path)


def test_a_pickle_is_never_loaded(tmp_path: Path) -> None:
    path = write(tmp_path, va=np.array([Path("x")] * 3, object))
    assert "not a readable .npz" in refusal(path)


def replace_member(path: Path, name: str, content: bytes) -> None:
    with zipfile.ZipFile(path) as archive:
        members = {info: archive.read(info) for info in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for member, old in members.items():
            archive.writestr(member, content if member == name else old)


def test_a_header_that_announces_too_much(tmp_path: Path) -> None:
    path = write(tmp_path)
    stream = io.BytesIO()
    header = {"descr": "<u4", "fortran_order": False, "shape": (1 << 60,)}
    np.lib.format.write_array_header_1_0(stream, header)
    replace_member(path, "va.npy", stream.getvalue())
    assert "does not hold the 1152921504606846976 items" in refusal(path)


def test_a_member_that_unpacks_to_too_much(tmp_path: Path) -> None:
    path = write(tmp_path)
    replace_member(path, "va.npy", bytes(MAX_ARRAY_BYTES + 1))
    assert "at most" in refusal(path)


@given(
    st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), min_size=1, max_size=4),
    st.integers(0, 10_000),
)
def test_damage_is_refused_or_harmless(
    tmp_path_factory: pytest.TempPathFactory, damage: list[tuple[int, int]], cut: int
) -> None:
    path = write(tmp_path_factory.getbasetemp())
    content = bytearray(path.read_bytes())
    for place, value in damage:
        content[place % len(content)] = value
    path.write_bytes(bytes(content[: len(content) - max(0, cut - 9_000)]))
    message = ""
    try:
        known = read_expectation(path)
        assert (np.diff(known.va.astype(np.int64)) >= 4096).all()
    except BadInput as error:
        message = str(error)
    assert message.isprintable()
