# SPDX-License-Identifier: GPL-2.0-or-later
"""A census of who maps what: every page table of every process against the reverse map.

:func:`reverse_map_census` sweeps the page tables as numpy arrays, straight from RAM and with no
code that changes them, and asks the reverse map of 2.6 (book 3.10) about every frame: the PTEs that
it names must be those that name the frame, no more and no fewer. What is counted along the way
must be right, too: ``_mapcount``, ``nr_mapped``, and ``rss``, ``anon_rss`` and ``nr_ptes`` of each
address space.

What can fail: :class:`ReverseMapWrong`, which names frame or address space and what is wrong.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from kernel_model.errors import MmucheckError
from kernel_model.image import KernelImage
from kernel_model.mm.mmzone import MemMap
from kernel_model.mm.rmap.interface import ReverseWalk

__all__ = ["Mapped", "ReverseMapWrong", "reverse_map_census"]

PAGE_OFFSET: Final = 0xC0000000
PAGE_SHIFT: Final = 12
PRESENT: Final = 0x81
"""Present, or present with every access forbidden."""
FRAME: Final = 0x000FFFFFFFFFF000
PG_RESERVED: Final = 1 << 11
MAPPING_ANON: Final = 1

I64 = npt.NDArray[np.int64]


class ReverseMapWrong(MmucheckError):
    """Page tables and reverse map contradict each other."""


class Mapped(NamedTuple):
    """Every PTE that names a counted frame: its own physical address, the frame's number, whose
    it is."""

    pteps: I64
    pfns: I64
    mms: I64


@dataclass(frozen=True)
class _Space:
    """One address space as its page tables have it."""

    mm: int
    tables: int
    mapped: Mapped


def reverse_map_census(
    image: KernelImage, memmap: MemMap, walk: ReverseWalk, mms: Iterable[int]
) -> Mapped:
    """Compare everything; returns what the sweep found. ``mms`` are all address spaces."""
    reader = _Reader(image, memmap)
    spaces = [reader.sweep(mm) for mm in dict.fromkeys(mms)]
    mapped = (
        Mapped(
            *(
                np.concatenate([[], *parts]).astype(np.int64)
                for parts in zip(*(space.mapped for space in spaces), strict=True)
            )
        )
        if spaces
        else Mapped(*(np.zeros(0, np.int64) for _ in range(3)))
    )
    reader.check_counts(mapped, walk)
    reader.check_named(mapped, walk)
    for space in spaces:
        reader.check_space(space)
    return mapped


class _Reader:
    """The words of one machine that the census looks at."""

    def __init__(self, image: KernelImage, memmap: MemMap) -> None:
        self._image = image
        self._ram = image.ram
        self._memmap = memmap
        structs = image.structs
        self._page = structs.page
        self._mm = structs.mm_struct
        self._wide = structs.abi.pae
        self._frames = int(image.statics.max_mapnr)
        rows = memmap.rows(memmap.page(0), self._frames)
        self._flags = rows[:, structs.page.word("flags")]
        self._mapping = rows[:, structs.page.word("mapping")]
        self._reserved = self._flags & PG_RESERVED != 0
        chained = structs.abi.rmap == "pte_chain"
        who = rows[:, structs.page.word("pte" if chained else "_mapcount")]
        self._mapped = who != (0 if chained else 0xFFFFFFFF)

    # -- page tables -----------------------------------------------------------------------------

    def _entries(self, paddr: int, count: int) -> I64:
        dtype = np.uint64 if self._wide else np.uint32
        return self._ram.table(paddr, count, dtype).astype(np.int64)

    def _tables(self, pgd: int) -> list[int]:
        """Physical addresses of the page tables below the user part of a directory."""
        if not self._wide:
            directories = [self._entries(pgd, 768)]
        else:
            above = self._entries(pgd, 3)
            directories = [self._entries(int(entry) & FRAME, 512) for entry in above if entry & 1]
        present = [directory[directory & 1 != 0] for directory in directories]
        return [int(entry) & FRAME for entries in present for entry in entries]

    def sweep(self, mm: int) -> _Space:
        """Every PTE of an address space that names a frame with users to count."""
        pgd = self._ram.read32(mm - PAGE_OFFSET + self._mm.offset("pgd")) - PAGE_OFFSET
        tables, pteps, pfns = self._tables(pgd), [], []
        width = 8 if self._wide else 4
        for table in tables:
            entries = self._entries(table, 4096 // width)
            present = np.flatnonzero(entries & PRESENT)
            frames = (entries[present] & FRAME) >> PAGE_SHIFT
            counted = frames < self._frames
            counted[counted] &= ~self._reserved[frames[counted]]
            pteps.append(table + present[counted] * width)
            pfns.append(frames[counted])
        whole = [np.concatenate([np.zeros(0, np.int64), *parts]) for parts in (pteps, pfns)]
        mapped = Mapped(whole[0], whole[1], np.full(len(whole[0]), mm, np.int64))
        return _Space(mm, len(tables), mapped)

    # -- frames ----------------------------------------------------------------------------------

    def check_counts(self, mapped: Mapped, walk: ReverseWalk) -> None:
        """``page_mapcount()`` of every frame, and how many frames are mapped at all."""
        found = np.bincount(mapped.pfns, minlength=self._frames)
        page = self._memmap.page
        counted = np.zeros(self._frames, np.int64)
        for pfn in np.flatnonzero(self._mapped & ~self._reserved).tolist():
            counted[pfn] = walk.mapcount(page(pfn))
        for pfn in np.flatnonzero(found != counted).tolist():
            raise ReverseMapWrong(
                f"frame {pfn:#x}: {found[pfn]} PTEs name it, the reverse map counts {counted[pfn]}"
            )
        states = self._image.statics.page_states
        nr_mapped = sum(int(state.nr_mapped) for state in states) & 0xFFFFFFFF
        frames = int(np.count_nonzero(found))
        if nr_mapped != frames:
            raise ReverseMapWrong(f"nr_mapped is {nr_mapped}, but {frames} frames are mapped")

    def check_named(self, mapped: Mapped, walk: ReverseWalk) -> None:
        """For each frame the very PTEs."""
        order = np.argsort(mapped.pfns, kind="stable")
        pfns, pteps = mapped.pfns[order], mapped.pteps[order]
        edges = np.flatnonzero(np.diff(pfns, prepend=-1, append=self._frames))
        for first, end in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
            pfn, found = int(pfns[first]), set(pteps[first:end].tolist())
            named = list(walk.named(self._memmap.page(pfn)))
            if len(named) != len(set(named)):
                raise ReverseMapWrong(f"frame {pfn:#x}: the reverse map names a PTE twice")
            for ptep in found.difference(named):
                raise ReverseMapWrong(
                    f"frame {pfn:#x}: the PTE at {ptep:#x} names it, the reverse map does not know"
                )
            for ptep in set(named) - found:
                raise ReverseMapWrong(
                    f"frame {pfn:#x}: the reverse map names the PTE at {ptep:#x}, which does not"
                )

    # -- address spaces --------------------------------------------------------------------------

    def check_space(self, space: _Space) -> None:
        """What an ``mm_struct`` counts of its pages."""
        pfns = space.mapped.pfns
        anon = np.count_nonzero(self._mapping[pfns] & MAPPING_ANON)
        found = {"rss": len(pfns), "anon_rss": int(anon), "nr_ptes": space.tables}
        view = self._image.at(self._mm, space.mm)
        for name, count in found.items():
            if int(getattr(view, name)) != count:
                raise ReverseMapWrong(
                    f"address space {space.mm:#x}: {name} is {int(getattr(view, name))}, its page "
                    f"tables say {count}"
                )
