# SPDX-License-Identifier: GPL-2.0-or-later
"""The page tables of user address spaces: found, made, walked in runs, and freed.

Models linux-2.4.22 ``mm/memory.c``: ``pte_alloc()``, ``free_one_pgd()``,
``clear_page_tables()``, and the names that 2.6 gave to what reaches a PTE: ``pte_alloc_map()``,
``pte_offset_map()``, ``pte_unmap()`` (book 3.3, 3.5, 3.10). An ``mm`` is the kernel virtual address
of a ``struct mm_struct``.

Page tables lie in low memory here, where a pointer to a PTE is its physical address and nobody
needs to give it back; whoever asks for one gives it back nevertheless, before anything that may
sleep, because a 2.6 kernel can be built so that page tables lie in high memory
(:mod:`kernel_model.mm.memory.linux_2_6.highpte`).
"""

from collections.abc import Iterator

import numpy as np

from kernel_model.arch_i386.page import PAGE_OFFSET, PAGE_SHIFT, PAGE_SIZE
from kernel_model.arch_i386.pgalloc import PageTableAllocator
from kernel_model.arch_i386.pgtable import pgd_page
from kernel_model.image import KernelImage


class UserTables:
    """The page tables below ``mm->pgd``, for every ``mm`` of the machine."""

    def __init__(self, image: KernelImage, page_tables: PageTableAllocator) -> None:
        self._ram = image.ram
        self._words = image.ram.words
        self._pgd = image.structs.mm_struct.word("pgd")
        self._allocator = page_tables
        self.tables = tables = page_tables.tables
        self.shape = tables.shape
        self._dtype = np.uint64 if self.shape.entry_bytes == 8 else np.uint32

    def pgd(self, mm: int) -> int:
        """Physical address of the page directory of ``mm``."""
        return self._words[(mm - PAGE_OFFSET >> 2) + self._pgd] - PAGE_OFFSET

    def pmd_offset(self, pgd: int, vaddr: int) -> int:
        """Where the middle entry for ``vaddr`` lies below the directory ``pgd``."""
        tables = self.tables
        return tables.pmd_offset(tables.pgd_offset(pgd, vaddr), vaddr)

    def pte_offset(self, pgd: int, vaddr: int) -> int:
        """The physical address of the PTE of ``vaddr``, wherever its table lies; 0: it has none.

        For who looks on: the kernel asks :meth:`pte_offset_map`.
        """
        return self.tables.user_pte_offset(pgd, vaddr)

    # -- pointers to PTEs ----------------------------------------------------------------------

    def pte_offset_map(self, pgd: int, vaddr: int) -> int:
        """A pointer to the PTE of ``vaddr``, until :meth:`pte_unmap`; 0: there is no page table."""
        return self.tables.user_pte_offset(pgd, vaddr)

    def pte_offset_map_nested(self, pgd: int, vaddr: int) -> int:
        """A second one, beside :meth:`pte_offset_map`, until :meth:`pte_unmap_nested`."""
        return self.tables.user_pte_offset(pgd, vaddr)

    def pte_alloc_map(self, mm: int, pgd: int, vaddr: int) -> int:
        """:meth:`pte_offset_map`, in a new page table of ``mm`` if need be; 0: no memory."""
        ptep = self.tables.user_pte_offset(pgd, vaddr)
        return ptep or self._allocator.pte_alloc(self.pmd_offset(pgd, vaddr), vaddr)

    def rmap_ptep_map(self, paddr: int) -> int:
        """A pointer to the PTE at a physical address, until :meth:`pte_unmap`."""
        return paddr

    def pte_unmap(self, ptep: int) -> None:
        """The pointer, or another one into the same table, is not needed any more."""

    def pte_unmap_nested(self, ptep: int) -> None:
        """The same for one of :meth:`pte_offset_map_nested`."""

    def pte(self, pgd: int, vaddr: int) -> int:
        """The PTE of ``vaddr`` as it is now; 0 when there is no page table for it."""
        ptep = self.pte_offset_map(pgd, vaddr)
        if not ptep:
            return 0
        pte = self.tables.entry(ptep)
        self.pte_unmap(ptep)
        return pte

    def has_table(self, pgd: int, vaddr: int) -> bool:
        """Whether there is a page table for ``vaddr``."""
        return self.tables.user_pte_offset(pgd, vaddr) != 0

    # -- ranges --------------------------------------------------------------------------------

    def spans(self, pgd: int, start: int, end: int) -> Iterator[tuple[int, int]]:
        """(first address, end) of each page table's part of ``start`` to ``end``."""
        size = self.shape.pmd_size
        while start < end:
            table_end = min((start // size + 1) * size, end)
            if self.has_table(pgd, start):
                yield start, table_end
            start = table_end

    def ptes(self, pgd: int, start: int, end: int) -> Iterator[tuple[int, int]]:
        """(address, pointer to its PTE) of each PTE from ``start`` to ``end`` that is not none.

        A page table is looked at as a whole when it is reached: the caller may clear what it
        is given, must not add entries to the same table, and must not sleep. Each pointer is good
        until the next one is asked for.
        """
        for first, table_end in self.spans(pgd, start, end):
            ptep = self.pte_offset_map(pgd, first)
            try:
                yield from self._used(ptep, first, table_end)
            finally:
                self.pte_unmap(ptep)

    def ptes_nested(self, pgd: int, start: int, end: int) -> Iterator[tuple[int, int]]:
        """:meth:`ptes` beside another pointer, for a range within one page table that there is."""
        ptep = self.pte_offset_map_nested(pgd, start)
        try:
            yield from self._used(ptep, start, end)
        finally:
            self.pte_unmap_nested(ptep)

    def _used(self, ptep: int, start: int, end: int) -> Iterator[tuple[int, int]]:
        """Those from ``start`` to ``end`` in the page table that ``ptep`` leads to."""
        paddr, width = self.tables.ptep_to_paddr(ptep), self.shape.entry_bytes
        used = np.flatnonzero(self._ram.table(paddr, end - start >> PAGE_SHIFT, self._dtype))
        for index in used.tolist():
            yield start + index * PAGE_SIZE, ptep + index * width

    def clear_page_tables(self, mm: int, first: int, count: int) -> None:
        """Free the page tables of ``count`` entries of the directory from ``first`` on.

        They must map nothing any more. The middle directories of PAE stay with their
        directory, as long as it lives.
        """
        shape = self.shape
        end = min(first + count, shape.user_ptrs_per_pgd)
        for pmdp in self._tables_below(self.pgd(mm), first, end):
            self._allocator.pte_free(pmdp)
        self._allocator.check_pgt_cache()

    def _tables_below(self, pgd: int, first: int, end: int) -> list[int]:
        """Pointers to the middle entries that have a page table, below those entries of ``pgd``."""
        shape, width = self.shape, self.shape.entry_bytes
        directories = [(pgd + first * width, max(end - first, 0))]
        if not shape.folded:
            entries = [self.tables.entry(pgd + index * width) for index in range(first, end)]
            directories = [(pgd_page(entry), shape.ptrs_per_pmd) for entry in entries]
        return [
            start + index * width
            for start, count in directories
            for index in np.flatnonzero(self._ram.table(start, count, self._dtype)).tolist()
        ]
