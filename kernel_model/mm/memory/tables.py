# SPDX-License-Identifier: GPL-2.0-or-later
"""The page tables of user address spaces: found, made, walked in runs, and freed.

Models linux-2.4.22 ``mm/memory.c``: ``pte_alloc()``, ``free_one_pgd()``,
``clear_page_tables()`` (book 3.3, 3.5). An ``mm`` is the kernel virtual address of a
``struct mm_struct``, a pointer to an entry a physical address.
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
        """Where the PTE of ``vaddr`` lies; 0 when there is no page table for it."""
        return self.tables.user_pte_offset(pgd, vaddr)

    def pte_alloc(self, mm: int, pgd: int, vaddr: int) -> int:
        """The same, in a new page table of ``mm`` if need be; 0 when memory is out."""
        ptep = self.tables.user_pte_offset(pgd, vaddr)
        return ptep or self._allocator.pte_alloc(self.pmd_offset(pgd, vaddr), vaddr)

    def ptes(self, pgd: int, start: int, end: int) -> Iterator[tuple[int, int]]:
        """(address, pointer to its PTE) of each PTE from ``start`` to ``end`` that is not none.

        A page table is looked at as a whole when it is reached: the caller may clear what it
        is given, and must not add entries to the same table.
        """
        shape = self.shape
        vaddr = start
        while vaddr < end:
            table_end = min((vaddr // shape.pmd_size + 1) * shape.pmd_size, end)
            ptep = self.pte_offset(pgd, vaddr)
            if ptep:
                count = table_end - vaddr >> PAGE_SHIFT
                used = np.flatnonzero(self._ram.table(ptep, count, self._dtype))
                for index in used.tolist():
                    yield vaddr + index * PAGE_SIZE, ptep + index * shape.entry_bytes
            vaddr = table_end

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
