# SPDX-License-Identifier: GPL-2.0-or-later
"""A whole address space as columns: every page that is mapped, and every entry that is broken.

:class:`Mappings` is what :func:`harness.mmu_sweep.sweep` returns, one row a page in the order
of addresses. ``ranges()`` joins neighbours for people; ``pages()`` spreads everything over the
1,048,576 pages for comparisons; :func:`outcome` is what an access to each of them comes to, by
the rules of Intel SDM volume 3A, sections 4.6 (access rights) and 4.7 (error code).

Nothing here can fail: the columns are made by the sweep.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from harness.architecture import (
    PF_FETCH,
    PF_PRESENT,
    PF_RESERVED,
    PF_USER,
    PF_WRITE,
    Access,
    ControlRegisters,
    Ring,
)
from harness.mmu_faults import entry_text
from harness.paging_modes import VA_BITS

PAGE_SHIFT: Final = 12
PAGES: Final = 1 << VA_BITS - PAGE_SHIFT
"""Pages of 4 KiB in the address space."""

RIGHT_PRESENT: Final = 1 << 0
RIGHT_WRITE: Final = 1 << 1
RIGHT_USER: Final = 1 << 2
RIGHT_RESERVED: Final = 1 << 3
"""A reserved bit is set on the way: every access faults with RSVD. Not present."""
RIGHT_BAD_TABLE: Final = 1 << 4
"""The walk leaves RAM: the architecture says nothing. Not present."""
RIGHT_GLOBAL: Final = 1 << 8
RIGHT_NX: Final = 1 << 15
COMPARED_RIGHTS: Final = RIGHT_WRITE | RIGHT_USER | RIGHT_NX
"""The bits that a list of known translations records."""

ALLOWED: Final = -1
"""In an outcome: the access succeeds."""
BAD_TABLE: Final = -2
"""In an outcome: a table outside RAM, nothing can be said."""

U8 = npt.NDArray[np.uint8]
U16 = npt.NDArray[np.uint16]
U32 = npt.NDArray[np.uint32]
U64 = npt.NDArray[np.uint64]
I64 = npt.NDArray[np.int64]
I16 = npt.NDArray[np.int16]


def rights_text(rights: int) -> str:
    """``user rw-``; ``global`` is added where it holds."""
    owner = "user" if rights & RIGHT_USER else "kernel"
    write = "w" if rights & RIGHT_WRITE else "-"
    execute = "-" if rights & RIGHT_NX else "x"
    return f"{owner} r{write}{execute}{' global' if rights & RIGHT_GLOBAL else ''}"


class Range(NamedTuple):
    """``length`` bytes at ``va`` that map ``length`` bytes at ``pa`` with equal rights."""

    va: int
    pa: int
    length: int
    rights: int

    def __str__(self) -> str:
        span = f"{self.va:#010x}..{self.va + self.length - 1:#010x}"
        return f"{span} -> {self.pa:#x}  {rights_text(self.rights)}"


class MalformedEntry(NamedTuple):
    """One broken entry, which spoils the ``size`` bytes at ``va``.

    ``reserved`` are the reserved bits that are set; 0 means that the entry points to a table
    outside RAM. ``paddr`` (bytes) is ``None`` for CR3.
    """

    va: int
    size: int
    level: str
    paddr: int | None
    entry: int
    reserved: int

    def __str__(self) -> str:
        defect = (
            f"reserved bits {self.reserved:#x} set"
            if self.reserved
            else "points to a table outside RAM"
        )
        span = f"va {self.va:#010x}..{self.va + self.size - 1:#010x}"
        return f"{span}: {entry_text(self.level, self.paddr, self.entry)}: {defect}"


@dataclass(frozen=True, slots=True)
class Malformed:
    """Broken entries as columns; iterate for :class:`MalformedEntry`.

    ``level`` indexes ``levels``, of which the first is CR3 (whose ``paddr`` is 0).
    """

    levels: tuple[str, ...]
    va: U64
    size: U64
    level: U8
    paddr: U64
    entry: U64
    reserved: U64

    def __len__(self) -> int:
        return len(self.va)

    def __iter__(self) -> Iterator[MalformedEntry]:
        for row in range(len(self)):
            level = int(self.level[row])
            yield MalformedEntry(
                int(self.va[row]),
                int(self.size[row]),
                self.levels[level],
                int(self.paddr[row]) if level else None,
                int(self.entry[row]),
                int(self.reserved[row]),
            )


@dataclass(frozen=True, slots=True)
class Pages:
    """The address space by page number: ``pfn`` is -1 and ``rights`` 0 where nothing is mapped.

    ``rights`` has ``RIGHT_PRESENT`` for every mapped page; a broken entry leaves
    ``RIGHT_RESERVED`` or ``RIGHT_BAD_TABLE`` alone. ``no_execute``: NX is in effect, so that
    the error code of a fetch has I.
    """

    pfn: I64
    rights: U16
    no_execute: bool


@dataclass(frozen=True, slots=True)
class Mappings:
    """Every mapping of an address space, one row a page, sorted by ``va``.

    ``va`` and ``pa`` are byte addresses, ``size`` is 4 KiB, 2 MiB or 4 MiB. ``rights`` are the
    ``RIGHT_*`` bits WRITE, USER, GLOBAL and NX, combined over all levels. ``leaf`` are bits 0-8
    of the entry that maps the page (P RW US PWT PCD A D PS/PAT G), and its NX in bit 15.
    """

    va: U64
    pa: U64
    size: U32
    rights: U16
    leaf: U16
    malformed: Malformed
    no_execute: bool

    def __len__(self) -> int:
        return len(self.va)

    def ranges(self) -> list[Range]:
        """Runs of rows adjacent in ``va`` and in ``pa`` with equal rights, whatever the page
        size."""
        if not len(self):
            return []
        size = self.size[:-1]
        broken = (
            (self.va[1:] != self.va[:-1] + size)
            | (self.pa[1:] != self.pa[:-1] + size)
            | (self.rights[1:] != self.rights[:-1])
        )
        first = np.concatenate(([0], np.flatnonzero(broken) + 1))
        last = np.concatenate((first[1:] - 1, [len(self) - 1]))
        length = self.va[last] + self.size[last] - self.va[first]
        columns = (self.va[first], self.pa[first], length, self.rights[first])
        return [Range(*row) for row in zip(*(column.tolist() for column in columns), strict=True)]

    def pages(self) -> Pages:
        """Spread all rows over dense arrays of :data:`PAGES` items."""
        pfn = np.full(PAGES, -1, np.int64)
        rights = np.zeros(PAGES, np.uint16)
        frames = (self.pa >> PAGE_SHIFT).astype(np.int64)
        _spread(pfn, self.va, self.size, frames, consecutive=True)
        _spread(rights, self.va, self.size, self.rights | np.uint16(RIGHT_PRESENT))
        broken = self.malformed
        defect = np.where(broken.reserved, RIGHT_RESERVED, RIGHT_BAD_TABLE).astype(np.uint16)
        _spread(rights, broken.va, broken.size, defect)
        return Pages(pfn, rights, self.no_execute)


def _spread(
    dense: I64 | U16, va: U64, size: U32 | U64, value: I64 | U16, *, consecutive: bool = False
) -> None:
    """Write each row's value to all its pages; ``consecutive``: counting up page by page.

    Rows are aligned to their size, so that the pages of a row are a row of the reshaped array.
    """
    for bytes_each in np.unique(size).tolist():
        chosen = size == bytes_each
        count = bytes_each >> PAGE_SHIFT
        values = value[chosen, np.newaxis]
        if consecutive:
            values = values + np.arange(count)
        dense.reshape(-1, count)[va[chosen] // bytes_each] = values


def outcome(
    pages: Pages, access: Access, ring: Ring, registers: ControlRegisters
) -> npt.NDArray[np.int16]:
    """What ``access`` from ``ring`` comes to on each page of the address space.

    The #PF error code, :data:`ALLOWED` (-1) or :data:`BAD_TABLE` (-2). Of ``registers`` only
    CR0.WP counts here: the others shaped ``pages``.
    """
    needed = RIGHT_USER if ring is Ring.USER else 0
    if access is Access.WRITE and (ring is Ring.USER or registers.write_protect):
        needed |= RIGHT_WRITE
    forbidden = RIGHT_NX if access is Access.FETCH else 0
    attempt = PF_USER if ring is Ring.USER else 0
    if access is Access.WRITE:
        attempt |= PF_WRITE
    if access is Access.FETCH and pages.no_execute:
        attempt |= PF_FETCH

    # One table over all possible rights costs less than six passes over all pages.
    rights = np.arange(1 << 16)
    denied = (rights & needed != needed) | (rights & forbidden != 0)
    codes = np.select(
        [
            rights & RIGHT_BAD_TABLE != 0,
            rights & RIGHT_RESERVED != 0,
            rights & RIGHT_PRESENT == 0,
            denied,
        ],
        [BAD_TABLE, attempt | PF_PRESENT | PF_RESERVED, attempt, attempt | PF_PRESENT],
        ALLOWED,
    )
    return codes.astype(np.int16)[pages.rights]
