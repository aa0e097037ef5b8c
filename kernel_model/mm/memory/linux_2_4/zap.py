# SPDX-License-Identifier: GPL-2.0-or-later
"""Taking pages away from an address space.

Models linux-2.4.22 ``mm/memory.c: zap_page_range()`` and ``include/asm-generic/tlb.h`` (book
4.4, 4.6): the entries are cleared first, then the TLB is flushed. Where another CPU may use the
address space meanwhile, frames are freed only behind the flush, up to 506 at a time.

In RAM: PTEs, ``mm->rss``, counts of frames and of swap slots. Nothing here can fail.
"""

from typing import Final

from kernel_model.arch_i386.page import PAGE_OFFSET
from kernel_model.arch_i386.pgtable import pte_dirty, pte_pfn, pte_present
from kernel_model.arch_i386.tlb import Tlb
from kernel_model.image import KernelImage
from kernel_model.mm.memory.tables import UserTables
from kernel_model.mm.page_alloc import PageAllocator
from kernel_model.mm.swap_state import SwapCache

FREE_PTE_NR: Final = 506


class Zapper:
    """``zap_page_range()`` of one machine."""

    def __init__(
        self,
        image: KernelImage,
        allocator: PageAllocator,
        tables: UserTables,
        swap: SwapCache,
        tlb: Tlb,
    ) -> None:
        self._events = image.events
        self._words = image.ram.words
        self._statics = image.statics
        self._memmap = allocator.memmap
        self._tables = tables
        self._entries = tables.tables
        self._swap = swap
        self._tlb = tlb
        self._smp = image.config.smp
        mm = image.structs.mm_struct
        self._rss = mm.word("rss")
        self._mm_users = mm.word("mm_users")

    def zap_page_range(self, mm: int, address: int, size: int) -> None:
        """Unmap ``size`` bytes from ``address``: free the frames and the swap slots."""
        tables, tlb = self._tables, self._tlb
        pgd, end = tables.pgd(mm), address + size
        gathered: list[int] | None = [] if self._others_may_use(mm) else None
        freed, base = 0, mm - PAGE_OFFSET >> 2
        tlb.caches.flush_cache_range(pgd, address, end)
        for vaddr, ptep in tables.ptes(pgd, address, end):
            pte = self._entries.entry(ptep)
            if not pte_present(pte):
                self._entries.pte_clear(ptep)
                self._swap.free_swap_and_cache(pte)
                continue
            pte = self._entries.ptep_get_and_clear(ptep)
            self._events.page_unmapped(pgd, vaddr)
            counted = self.counted(pte)
            freed += counted
            if gathered is None:
                if counted:
                    self._free_pte(pte)
                continue
            gathered.append(pte)
            if len(gathered) == FREE_PTE_NR:
                self._flush_and_free(pgd, address, end, gathered)
        if gathered is None:
            tlb.flush_tlb_range(pgd, address, end)
        elif gathered:
            self._flush_and_free(pgd, address, end, gathered)
        rss = self._words[base + self._rss]
        self._words[base + self._rss] = max(rss - freed, 0)

    def _others_may_use(self, mm: int) -> bool:
        """Whether another CPU may have the space loaded (``tlb_gather_mmu()``)."""
        return self._smp and self._words[(mm - PAGE_OFFSET >> 2) + self._mm_users] != 1

    def _flush_and_free(self, pgd: int, start: int, end: int, gathered: list[int]) -> None:
        self._tlb.flush_tlb_range(pgd, start, end)
        for pte in gathered:
            if self.counted(pte):
                self._free_pte(pte)
        gathered.clear()

    def counted(self, pte: int) -> bool:
        """Whether the frame of ``pte`` counts in ``rss``: no device, and not reserved."""
        pfn = pte_pfn(pte)
        if pfn >= self._statics.max_mapnr:
            return False
        return not self._memmap.reserved(self._memmap.page(pfn))

    def _free_pte(self, pte: int) -> None:
        """``__free_pte()``: the mapping's reference to its counted frame ends."""
        page = self._memmap.page(pte_pfn(pte))
        if pte_dirty(pte):
            self._swap.cache.set_page_dirty(page)
        self._swap.free_page_and_swap_cache(page)
