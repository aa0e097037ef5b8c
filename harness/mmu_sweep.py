# SPDX-License-Identifier: GPL-2.0-or-later
"""The reference walk over a whole address space at once, table by table, in numpy.

Says the same as :mod:`harness.mmu_spec` (the tests hold the two against each other) with no
Python step per page: each level gathers all tables that the level above points to as rows of
one array. Source: Intel SDM volume 3A, sections 4.3, 4.4 and 4.6.

:func:`sweep` gives :class:`~harness.mappings.Mappings`. What can fail: a buffer that is not
whole 4 KiB frames is a ``ValueError``; registers of long mode raise
:class:`~harness.mmu_faults.UnsupportedPaging`. Reserved bits and tables outside RAM are no
errors here but rows of ``Mappings.malformed``.
"""

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from harness.architecture import PTE_NX, PTE_P, PTE_PS, PTE_RW, PTE_US, ControlRegisters
from harness.mappings import (
    PAGE_SHIFT,
    PAGES,
    RIGHT_GLOBAL,
    RIGHT_NX,
    RIGHT_USER,
    RIGHT_WRITE,
    U16,
    U32,
    U64,
    Malformed,
    Mappings,
)
from harness.paging_modes import (
    DEFAULT_FEATURES,
    PAGE_SIZE,
    PSE36_SHIFT,
    EntryFormat,
    Level,
    MmuFeatures,
    PagingMode,
    paging_mode,
)

__all__ = ["sweep"]

_LEAF_FLAGS: Final = 0x1FF
_NX_SHIFT: Final = 48
"""From bit 63 of an entry to bit 15 of a row."""

_PAGE_COLUMNS: Final = (np.uint64, np.uint64, np.uint32, np.uint16, np.uint16)
_MALFORMED_COLUMNS: Final = (np.uint64, np.uint64, np.uint8, np.uint64, np.uint64, np.uint64)

Columns = tuple[npt.NDArray[Any], ...]
Entries = npt.NDArray[np.uint32] | npt.NDArray[np.uint64]
Indices = npt.NDArray[np.intp]
Chosen = npt.NDArray[np.bool_]


def sweep(
    buffer: U32,
    registers: ControlRegisters,
    features: MmuFeatures = DEFAULT_FEATURES,
    ranges: Sequence[tuple[int, int]] | None = None,
) -> Mappings:
    """Every mapping that ``registers`` select in the RAM that ``buffer`` views.

    ``buffer`` begins at physical address 0. ``ranges`` are the sorted, disjoint ``[start, end)``
    byte ranges that hold RAM (``Ram.ranges``); without them the whole buffer does. With paging
    off, the result is the identity in 4 KiB pages, all of it accessible.
    """
    if buffer.nbytes % PAGE_SIZE:
        raise ValueError(f"buffer of {buffer.nbytes} bytes: give whole frames of {PAGE_SIZE}")
    mode = paging_mode(registers, features)
    if mode is None:
        return _identity()
    memory = _Memory(buffer, mode.entry_size, ranges)
    found = _Found(mode)
    above = _root(mode, registers.cr3)
    for number, level in enumerate(mode.levels):
        present, tables = _read_tables(memory, mode, number, above, found)
        if level.large is None:
            above = _follow(mode, number, level.plain, present, tables, found)
        else:
            large = (present.entry & PTE_PS) != 0
            _follow(mode, number, level.large, present.where(large), tables, found)
            above = _follow(mode, number, level.plain, present.where(~large), tables, found)
    return found.mappings()


class _Pointers(NamedTuple):
    """Entries that point to tables, all of one level: what the next level starts from.

    ``rights`` combine the levels so far; ``paddr`` and ``entry`` are kept for the report.
    """

    table: U64
    va: U64
    rights: U16
    paddr: U64
    entry: U64

    def where(self, chosen: Chosen) -> "_Pointers":
        return _Pointers(
            self.table[chosen],
            self.va[chosen],
            self.rights[chosen],
            self.paddr[chosen],
            self.entry[chosen],
        )


class _Present(NamedTuple):
    """Present entries of one level: ``row`` names the table, ``column`` the place in it."""

    row: Indices
    column: Indices
    entry: Entries

    def where(self, chosen: Chosen) -> "_Present":
        return _Present(self.row[chosen], self.column[chosen], self.entry[chosen])


class _Memory:
    """RAM seen as rows of table entries."""

    def __init__(
        self, buffer: U32, entry_size: int, ranges: Sequence[tuple[int, int]] | None
    ) -> None:
        self._words: Entries = buffer if entry_size == 4 else buffer.view(np.uint64)
        spans = [(0, buffer.nbytes)] if ranges is None else ranges
        self._start = np.array([start for start, _ in spans], np.uint64)
        self._end = np.array([end for _, end in spans], np.uint64)

    def holds(self, table: U64, length: int) -> Chosen:
        """Which tables of ``length`` bytes lie in RAM as a whole."""
        span = np.searchsorted(self._start, table, side="right") - 1
        inside: Chosen = (span >= 0) & (table + np.uint64(length) <= self._end[span])
        return inside

    def gather(self, table: U64, entries: int) -> Entries:
        """The tables as rows of one array; a table is aligned to its size."""
        row = table // np.uint64(entries * self._words.itemsize)
        gathered: Entries = self._words.reshape(-1, entries)[row]
        return gathered


class _Found:
    """The rows found so far: parts that are joined and sorted at the end."""

    def __init__(self, mode: PagingMode) -> None:
        self._mode = mode
        self._pages: list[Columns] = [tuple(np.empty(0, kind) for kind in _PAGE_COLUMNS)]
        self._malformed: list[Columns] = [tuple(np.empty(0, kind) for kind in _MALFORMED_COLUMNS)]

    def add_pages(self, va: U64, pa: U64, size: int, rights: U16, leaf: U16) -> None:
        self._pages.append((va, pa, np.full(len(va), size, np.uint32), rights, leaf))

    def add_malformed(
        self, va: U64, size: int, level: int, paddr: U64, entry: Entries, reserved: Entries
    ) -> None:
        """``level`` counts from CR3 = 0, the root table's entries = 1."""
        sizes = np.full(len(va), size, np.uint64)
        levels = np.full(len(va), level, np.uint8)
        wide = (entry.astype(np.uint64), reserved.astype(np.uint64))
        self._malformed.append((va, sizes, levels, paddr, *wide))

    def mappings(self) -> Mappings:
        names = ("CR3", *(level.name for level in self._mode.levels))
        malformed = Malformed(names, *_sorted(self._malformed))
        va, pa, size, rights, leaf = _sorted(self._pages)
        return Mappings(va, pa, size, rights, leaf, malformed, self._mode.nx)


def _sorted(parts: list[Columns]) -> Columns:
    """The columns of all parts joined, sorted by the first. Each part is sorted already."""
    filled = [part for part in parts if len(part[0])] or parts[:1]
    if len(filled) == 1:
        return filled[0]
    joined = [np.concatenate(column) for column in zip(*filled, strict=True)]
    order = np.argsort(joined[0], kind="stable")
    return tuple(column[order] for column in joined)


def _identity() -> Mappings:
    """Paging off: addresses are physical, and nothing is forbidden."""
    va = np.arange(PAGES, dtype=np.uint64) << np.uint64(PAGE_SHIFT)
    size = np.full(PAGES, PAGE_SIZE, np.uint32)
    rights = np.full(PAGES, RIGHT_WRITE | RIGHT_USER, np.uint16)
    none = np.empty(0, np.uint64)
    malformed = Malformed((), none, none, np.empty(0, np.uint8), none, none, none)
    return Mappings(va, va.copy(), size, rights, np.zeros(PAGES, np.uint16), malformed, False)


def _root(mode: PagingMode, cr3: int) -> _Pointers:
    """CR3 as the entry that points to the root table; it grants everything."""
    rights = np.array([PTE_RW | PTE_US], np.uint16)
    zero = np.zeros(1, np.uint64)
    return _Pointers(
        np.array([cr3 & mode.root], np.uint64), zero, rights, zero, np.array([cr3], np.uint64)
    )


def _read_tables(
    memory: _Memory, mode: PagingMode, number: int, above: _Pointers, found: _Found
) -> tuple[_Present, _Pointers]:
    """The present entries of all tables of level ``number``, and the tables that lie in RAM."""
    level = mode.levels[number]
    inside = memory.holds(above.table, level.entries * mode.entry_size)
    if not inside.all():
        lost = above.where(~inside)
        covered = level.entries << level.shift
        found.add_malformed(
            lost.va, covered, number, lost.paddr, lost.entry, np.zeros_like(lost.entry)
        )
        above = above.where(inside)
    entries = memory.gather(above.table, level.entries)
    place = np.flatnonzero((entries & PTE_P) != 0)
    row = place >> level.index_bits
    return _Present(row, place & level.entries - 1, entries.reshape(-1)[place]), above


def _follow(
    mode: PagingMode,
    number: int,
    form: EntryFormat,
    present: _Present,
    tables: _Pointers,
    found: _Found,
) -> _Pointers:
    """Sort entries of one format into broken ones, pages, and pointers to tables.

    Pages and broken entries go to ``found``; what is returned is empty for a page format.
    """
    level = mode.levels[number]
    if form.reserved:
        reserved = present.entry & form.reserved
        broken = reserved != 0
        if broken.any():
            bad = present.where(broken)
            va, paddr = _va(level, bad, tables), _paddr(mode, bad, tables)
            size = 1 << level.shift
            found.add_malformed(va, size, number + 1, paddr, bad.entry, reserved[broken])
            present = present.where(~broken)
    va = _va(level, present, tables)
    target = _target(form, present.entry)
    rights = _combine(form, present.entry, tables.rights[present.row])
    if not form.page_size:
        entry = present.entry.astype(np.uint64)
        return _Pointers(target, va, rights, _paddr(mode, present, tables), entry)
    leaf = present.entry.astype(np.uint16) & np.uint16(_LEAF_FLAGS)
    if mode.global_pages:
        rights |= leaf & np.uint16(RIGHT_GLOBAL)
    found.add_pages(va, target, form.page_size, rights, leaf | _no_execute(form, present.entry))
    return tables.where(np.zeros(len(tables.va), np.bool_))


def _va(level: Level, present: _Present, tables: _Pointers) -> U64:
    return tables.va[present.row] | present.column.astype(np.uint64) << np.uint64(level.shift)


def _paddr(mode: PagingMode, present: _Present, tables: _Pointers) -> U64:
    return tables.table[present.row] + present.column.astype(np.uint64) * np.uint64(mode.entry_size)


def _target(form: EntryFormat, entry: Entries) -> U64:
    """Physical byte address of the page or table. PSE-36 moves bits beyond the entry's 32."""
    target = (entry & form.address).astype(np.uint64)
    if form.high_address:
        target |= (entry & form.high_address).astype(np.uint64) << np.uint64(PSE36_SHIFT)
    return target


def _no_execute(form: EntryFormat, entry: Entries) -> U16:
    """RIGHT_NX where the entry sets NX, if the format has it."""
    if not form.flags & PTE_NX:
        return np.zeros(len(entry), np.uint16)
    return (entry >> _NX_SHIFT).astype(np.uint16) & np.uint16(RIGHT_NX)


def _combine(form: EntryFormat, entry: Entries, inherited: U16) -> U16:
    """Section 4.6: R/W and U/S hold while every entry that has them sets them; NX once any does."""
    limiting = form.flags & (PTE_RW | PTE_US)
    rights = inherited & (entry.astype(np.uint16) | np.uint16(0xFFFF & ~limiting))
    return rights | _no_execute(form, entry)
