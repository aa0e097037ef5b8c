# SPDX-License-Identifier: GPL-2.0-or-later
"""A list of known translations, written down or from a file: what ``--expect`` compares with.

In Python it is a list of :class:`Maps`, made an :class:`Expectation` by :func:`expected`.

The file is numpy's zip of arrays. ``va``, ``pa``, ``size`` and ``rights`` have one row for every
mapping there is; ``absent``, if given, lists addresses that translate to nothing. The arrays
are taken apart here instead of by ``numpy.load``: the file may come from anywhere, and its
headers must not decide how much memory is allocated.

What can fail: any flaw of the file or its rows is one line of
:class:`~kernel_model.errors.BadInput`.
"""

import io
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
from numpy.lib import format as npy

from harness.files import open_regular
from kernel_model.errors import BadInput

RIGHT_WRITE: Final = 1 << 1
RIGHT_USER: Final = 1 << 2
RIGHT_NO_EXECUTE: Final = 1 << 15
PAGE_SIZES: Final = (4096, 2 << 20, 4 << 20)
MAX_ARRAY_BYTES: Final = 64 << 20
"""Eight bytes for each page of 4 GiB make 8 MiB; a list of absent addresses may be longer."""
_MAX_PHYSICAL: Final = 1 << 52
"""One more than the largest physical address the architecture ever defined."""

Column = npt.NDArray[np.uint64]


def _no_addresses() -> npt.NDArray[np.uint32]:
    return np.zeros(0, np.uint32)


@dataclass(frozen=True, slots=True, eq=False)
class Expectation:
    """Rows sorted by ``va``, disjoint, aligned to their size; addresses and sizes in bytes.

    ``rights`` are combined over all levels: bit 1 writable, bit 2 user, bit 15 no-execute.
    ``absent`` are virtual addresses in no row.
    """

    va: npt.NDArray[np.uint32]
    pa: npt.NDArray[np.uint64]
    size: npt.NDArray[np.uint32]
    rights: npt.NDArray[np.uint16]
    absent: npt.NDArray[np.uint32] = field(default_factory=_no_addresses)

    def __len__(self) -> int:
        return len(self.va)


@dataclass(frozen=True, slots=True)
class Maps:
    """``size`` bytes at ``va`` translate to those at ``pa``, by pages of ``page_size`` bytes.

    Ring 0 may read them. ``write`` and ``user`` are what all levels of the walk grant together;
    ``execute`` counts where the CPU has NX.
    """

    va: int
    pa: int
    size: int = 4096
    write: bool = False
    user: bool = False
    execute: bool = True
    page_size: int = 4096

    @property
    def rights(self) -> int:
        granted = RIGHT_WRITE if self.write else 0
        granted |= RIGHT_USER if self.user else 0
        return granted | (0 if self.execute else RIGHT_NO_EXECUTE)


def expected(mappings: Iterable[Maps], absent: Iterable[int] = ()) -> Expectation:
    """Exactly ``mappings`` and nothing else; the CPU is asked about each of ``absent``, too.

    :raises BadInput: for addresses that are not aligned, or two mappings of one page.
    """
    rows: list[tuple[int, int, int, int]] = []
    for mapping in mappings:
        step = mapping.page_size
        if mapping.size < 1 or step < 1 or mapping.size % step:
            raise BadInput(f"{mapping}: size must be a multiple of page_size")
        for offset in range(0, mapping.size, step):
            rows.append((mapping.va + offset, mapping.pa + offset, step, mapping.rights))
    columns = np.array(sorted(rows), np.uint64).reshape(-1, 4).T
    arrays = dict(zip(("va", "pa", "size", "rights"), columns, strict=True))
    where = Path("expect")
    return _checked(where, arrays, np.array(list(absent), np.uint64))


def read_expectation(path: Path) -> Expectation:
    """Read and check an ``.npz`` list of translations.

    :raises BadInput: in one line, naming the file, the array, the row and what would be right.
    """
    arrays = _read_arrays(path, ("va", "pa", "size", "rights"), ("absent",))
    for name in ("va", "pa"):
        if arrays[name].dtype.kind != "u":
            raise BadInput(f"{path}: array {name} is {arrays[name].dtype}: make it unsigned")
    lengths = {name: len(arrays[name]) for name in ("va", "pa", "size", "rights")}
    if len(set(lengths.values())) > 1:
        said = ", ".join(f"{name} {length}" for name, length in lengths.items())
        raise BadInput(f"{path}: the arrays differ in length ({said}): give one row per mapping")
    columns = {name: _unsigned(path, name, array) for name, array in arrays.items()}
    order = np.argsort(columns["va"], kind="stable")
    rows = {name: columns[name][order] for name in lengths}
    return _checked(path, rows, columns.get("absent", np.zeros(0, np.uint64)))


def _checked(path: Path, rows: dict[str, Column], absent: Column) -> Expectation:
    """An expectation of rows that are sorted by address."""
    _check_rows(path, rows)
    _check_absent(path, rows, absent)
    return Expectation(
        va=rows["va"].astype(np.uint32),
        pa=rows["pa"],
        size=rows["size"].astype(np.uint32),
        rights=rows["rights"].astype(np.uint16),
        absent=np.sort(absent).astype(np.uint32),
    )


def _read_arrays(
    path: Path, wanted: tuple[str, ...], optional: tuple[str, ...]
) -> dict[str, npt.NDArray[np.integer]]:
    arrays: dict[str, npt.NDArray[np.integer]] = {}
    try:
        with open_regular(path, "an .npz file") as file, zipfile.ZipFile(file) as archive:
            present = {info.filename: info for info in archive.infolist()}
            for name in wanted + optional:
                info = present.get(f"{name}.npy")
                if info is not None:
                    arrays[name] = _read_array(archive, info)
    except BadInput:
        raise
    except OSError as error:
        raise BadInput(f"{path}: cannot be read: {error.strerror or error}") from error
    except Exception as error:
        # A damaged zip or header makes zipfile, zlib, ast and numpy raise nearly anything.
        reason = " ".join(str(error).split()) or type(error).__name__
        raise BadInput(f"{path}: not a readable .npz file: {reason[:200]}") from error
    for name in wanted:
        if name not in arrays:
            raise BadInput(f"{path}: no array {name}: give {', '.join(wanted)}, all of one length")
    return arrays


def _read_array(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> npt.NDArray[np.integer]:
    """One 1-dimensional array of integers; never unpickles, never trusts a count."""
    if info.file_size > MAX_ARRAY_BYTES:
        raise ValueError(f"{info.filename} has {info.file_size} bytes, at most {MAX_ARRAY_BYTES}")
    content = archive.read(info)
    stream = io.BytesIO(content)
    version = npy.read_magic(stream)
    readers = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
    if version not in readers:
        raise ValueError(f"{info.filename} has format version {version}, not 1.0 or 2.0")
    shape, _fortran, dtype = readers[version](stream)
    if len(shape) != 1 or dtype.kind not in "ui":
        raise ValueError(f"{info.filename} is {dtype} of shape {shape}: give a row of integers")
    if shape[0] * dtype.itemsize != len(content) - stream.tell():
        raise ValueError(f"{info.filename} does not hold the {shape[0]} items it announces")
    return np.frombuffer(content, dtype, shape[0], stream.tell())


def _unsigned(path: Path, name: str, array: npt.NDArray[np.integer]) -> Column:
    if array.size and (least := array.min()) < 0:
        raise BadInput(f"{path}: array {name} has {least}: no value may be negative")
    return array.astype(np.uint64)


def _check_rows(path: Path, rows: dict[str, Column]) -> None:
    """Rows sorted by ``va``: values in range, aligned, and none over another."""
    va, pa, size, rights = (rows[name] for name in ("va", "pa", "size", "rights"))
    allowed = RIGHT_WRITE | RIGHT_USER | RIGHT_NO_EXECUTE
    bad_size = ~np.isin(size, PAGE_SIZES)
    safe_size = np.where(bad_size, np.uint64(4096), size)
    checks = (
        ("size", bad_size, "give 4096, 2 MiB or 4 MiB"),
        ("va", va >= 1 << 32, "give a 32-bit address"),
        ("va", va % safe_size != 0, "align it to the row's size"),
        ("pa", pa >= _MAX_PHYSICAL, "give at most 52 bits"),
        ("pa", pa % safe_size != 0, "align it to the row's size"),
        ("rights", (rights & np.uint64(~allowed & 0xFFFFFFFFFFFFFFFF)) != 0, "use bits 1, 2, 15"),
    )
    for name, wrong, remedy in checks:
        if wrong.any():
            row = int(np.flatnonzero(wrong)[0])
            value = int(rows[name][row])
            raise BadInput(f"{path}: {name} {value:#x} at va {int(va[row]):#010x}: {remedy}")
    over = np.flatnonzero(va[1:] < va[:-1] + size[:-1])
    if over.size:
        first, second = int(va[over[0]]), int(va[over[0] + 1])
        raise BadInput(
            f"{path}: two rows translate {second:#010x} (the other starts at {first:#010x}): "
            f"give every mapping once"
        )


def _check_absent(path: Path, rows: dict[str, Column], absent: Column) -> None:
    if (absent >= 1 << 32).any():
        raise BadInput(f"{path}: absent {int(absent.max()):#x}: give a 32-bit address")
    if not len(rows["va"]) or not absent.size:
        return
    row = np.searchsorted(rows["va"], absent, side="right").astype(np.int64) - 1
    ends = rows["va"][row] + rows["size"][row]
    inside = (row >= 0) & (absent < ends)
    if inside.any():
        address = int(absent[np.flatnonzero(inside)[0]])
        raise BadInput(f"{path}: {address:#010x} is both absent and mapped by a row: drop one")
