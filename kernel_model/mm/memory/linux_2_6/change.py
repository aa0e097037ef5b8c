# SPDX-License-Identifier: GPL-2.0-or-later
"""Entries that move to another address, and what a child gets of those that are absent.

Models linux-2.6.11 ``mm/mremap.c: move_page_tables()`` and ``mm/memory.c: copy_swap_pte()`` (book
3.10, 4.8). In RAM: PTEs; the list of address spaces with pages in swap. What can fail: no memory
for a page table; then everything is put back.
"""

from typing import ClassVar

from kernel_model.arch_i386.pgtable import pte_pfn, pte_present
from kernel_model.arch_i386.tlb import Tlb
from kernel_model.image import KernelImage
from kernel_model.mm.hugetlb.tables import HugePageTables
from kernel_model.mm.memory.change import EntryChanger, ZapPageRange
from kernel_model.mm.memory.copy import PageCopier
from kernel_model.mm.memory.linux_2_6.tables import CountedTables
from kernel_model.mm.mmzone import MemMap
from kernel_model.mm.page_alloc import PageAllocator
from kernel_model.mm.rmap.interface import ReverseMap
from kernel_model.mm.rmap.one_pte import SwappedSpaces
from kernel_model.mm.swapfile import SwapAreas


class EntryChanger26(EntryChanger):
    """:class:`EntryChanger` that moves from the lowest address up, each entry with its flush."""

    HIGHEST_FIRST: ClassVar[bool] = False

    def __init__(
        self,
        image: KernelImage,
        tables: CountedTables,
        zap_page_range: ZapPageRange,
        tlb: Tlb,
        memmap: MemMap,
        rmap: ReverseMap,
    ) -> None:
        super().__init__(image, tables, zap_page_range, tlb)
        self._statics = image.statics
        self._memmap = memmap
        self._rmap = rmap

    def _one_moved(self, pgd: int, source: int, src_pte: int, dst_pte: int, pte: int) -> None:
        self._tlb.flush_tlb_page(pgd, source)
        if pte_present(pte) and pte_pfn(pte) < self._statics.max_mapnr:
            page = self._memmap.page(pte_pfn(pte))
            if not self._memmap.reserved(page):
                self._rmap.moved(page, src_pte, dst_pte)

    def _all_moved(self, pgd: int, start: int, end: int) -> None:
        """Each was flushed as it went."""


class PageCopier26(PageCopier):
    """:class:`PageCopier` for PTEs that may hold a page of a file, and for huge pages."""

    def __init__(
        self,
        image: KernelImage,
        allocator: PageAllocator,
        tables: CountedTables,
        areas: SwapAreas,
        rmap: ReverseMap,
        huge: HugePageTables,
    ) -> None:
        super().__init__(image, allocator, tables, areas, rmap)
        self._spaces = SwappedSpaces(image)
        self._huge = huge

    def copy_page_range(self, dst: int, src: int, vma: int) -> int:
        if self._huge.is_vm_hugetlb_page(vma):
            return self._huge.copy_hugetlb_page_range(dst, src, vma)
        return super().copy_page_range(dst, src, vma)

    def _copy_absent(self, dst: int, src: int, pte: int) -> None:
        ptes = self._areas.ptes
        if not ptes.pte_file(pte):
            self._areas.swap_duplicate(ptes.pte_to_swp_entry(pte))
            self._spaces.join(dst, src)
