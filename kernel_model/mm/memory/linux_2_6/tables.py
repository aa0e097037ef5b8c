# SPDX-License-Identifier: GPL-2.0-or-later
"""Page tables that are counted, and known to the reverse map.

Models linux-2.6.11 ``mm/memory.c``: ``pte_alloc_map()`` (book 3.5, 4.8). In RAM besides the tables:
``mm->nr_ptes``, ``page_state.nr_page_table_pages``. What can fail: no memory.
"""

from kernel_model.arch_i386.page import PAGE_OFFSET
from kernel_model.arch_i386.pgalloc import PageTableAllocator
from kernel_model.arch_i386.pgtable import pmd_page
from kernel_model.image import KernelImage
from kernel_model.mm.linux_2_6.page_state import PageState
from kernel_model.mm.memory.tables import UserTables
from kernel_model.mm.rmap.interface import ReverseMap


class CountedTables(UserTables):
    """:class:`UserTables` whose tables each ``mm`` counts."""

    def __init__(
        self, image: KernelImage, page_tables: PageTableAllocator, rmap: ReverseMap
    ) -> None:
        super().__init__(image, page_tables)
        self._rmap = rmap
        self._state = PageState(image)
        self._nr_ptes = image.structs.mm_struct.word("nr_ptes")

    def pte_alloc_map(self, mm: int, pgd: int, vaddr: int) -> int:
        if ptep := self.pte_offset_map(pgd, vaddr):
            return ptep
        paddr = self._allocator.pte_alloc(self.pmd_offset(pgd, vaddr), vaddr)
        if not paddr:
            return 0
        self.count_tables(mm, 1)
        self._rmap.table_made(mm, vaddr, paddr)
        return self.pte_offset_map(pgd, vaddr)

    def detach_table(self, pmdp: int) -> int:
        """Take the page table away from ``*pmdp``. Returns its physical address."""
        table = pmd_page(self.tables.entry(pmdp))
        self.tables.set_pmd(pmdp, 0)
        return table

    def count_tables(self, mm: int, tables: int) -> None:
        """So many page tables more in an address space."""
        self._words[(mm - PAGE_OFFSET >> 2) + self._nr_ptes] += tables
        self._state.add("nr_page_table_pages", tables)
