# SPDX-License-Identifier: GPL-2.0-or-later
"""Unmapping: what goes is gathered, the TLB flushed, the frames freed.

Models linux-2.6.11 ``mm/memory.c``: ``unmap_vmas()``, ``clear_page_range()``, and
``include/asm-generic/tlb.h`` (book 3.8, 4.8). One ``struct mmu_gather`` goes through all VMAs of
an operation, then through the page tables. With one CPU online frames are freed at once, and the
TLB is flushed when everything is gone; with several they wait for a flush, up to 506 of them.

In RAM: PTEs, page tables, ``mm->rss``, ``mm->anon_rss``, ``mm->nr_ptes``, counts of frames and of
swap slots. Nothing here can fail.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

from kernel_model.arch_i386.page import PAGE_OFFSET, PAGE_SHIFT
from kernel_model.arch_i386.pgtable import pte_dirty, pte_pfn, pte_present, pte_young
from kernel_model.arch_i386.tlb import Tlb
from kernel_model.image import KernelImage
from kernel_model.mm.hugetlb.tables import HugePageTables
from kernel_model.mm.memory.linux_2_6.tables import CountedTables
from kernel_model.mm.page_alloc import PageAllocator
from kernel_model.mm.rmap.interface import ReverseMap
from kernel_model.mm.rmap.mapped_pages import MappedPages
from kernel_model.mm.rmap.one_pte import SetPageDirty
from kernel_model.mm.swap_state import SwapCache
from kernel_model.mm.swapops import FilePtes

FREE_PTE_NR: Final = 506
ZAP_BLOCK_SIZE: Final = 1024 << PAGE_SHIFT
"""Bytes that are unmapped before the TLB is flushed in between."""


class ZapDetails(NamedTuple):
    """``struct zap_details``: which pages of a file go, when they do not all go.

    Where neither of the last two is set all of them do, with what the PTEs say of absent ones.
    """

    first_index: int
    last_index: int
    check_mapping: int = 0
    """Only pages of this address space, no private copies; 0: those too."""
    nonlinear_vma: int = 0
    """The VMA, when it is one of ``remap_file_pages()``: pages are known by their index."""


class Gatherer:
    """Unmapping on one machine. Each operation begins with a :meth:`tlb_gather_mmu`."""

    def __init__(
        self,
        image: KernelImage,
        allocator: PageAllocator,
        tables: CountedTables,
        swap: SwapCache,
        ptes: FilePtes,
        tlb: Tlb,
        rmap: ReverseMap,
        set_page_dirty: SetPageDirty,
        huge: HugePageTables,
    ) -> None:
        self.huge = huge
        self.words = image.ram.words
        self.statics = image.statics
        self.events = image.events
        self.lru = allocator.lru
        self.memmap = allocator.memmap
        self.tables = tables
        self.swap = swap
        self.ptes = ptes
        self.tlb = tlb
        self.rmap = rmap
        self.set_page_dirty = set_page_dirty
        self.pages = MappedPages(image, allocator.memmap)
        self.rss = image.structs.mm_struct.word("rss")
        self._fast_mode = not image.config.smp

    def tlb_gather_mmu(self, mm: int, *, full_mm_flush: bool = False) -> "MmuGather":
        """Begin. ``full_mm_flush``: the whole address space goes, which on an i386 is no
        different."""
        return MmuGather(self, mm, self._fast_mode)

    def zap_page_range(
        self, mm: int, address: int, size: int, details: ZapDetails | None = None
    ) -> None:
        """Unmap ``size`` bytes of one VMA from ``address``."""
        gather = self.tlb_gather_mmu(mm)
        gather.unmap_range(address, address + size, details)
        gather.tlb_finish_mmu(address, address + size)


class MmuGather:
    """``struct mmu_gather``: what has been unmapped from ``mm`` and not been flushed so far.

    In fast mode nobody else may see what is unmapped, and frames are freed at once.
    """

    def __init__(self, parts: Gatherer, mm: int, fast_mode: bool) -> None:
        self._parts = parts
        self._pgd = parts.tables.pgd(mm)
        self._mm = mm
        self._waiting: list[int] | None = None if fast_mode else []
        self._need_flush = False
        self._freed = 0
        self._zap_bytes = ZAP_BLOCK_SIZE

    # -- flushing ------------------------------------------------------------------------------

    def _flush(self) -> None:
        """``tlb_flush_mmu()``: flush, if anything was unmapped, then free what waited for it."""
        if not self._need_flush:
            return
        self._need_flush = False
        self._parts.tlb.flush_tlb_mm(self._pgd)
        if self._waiting is not None:
            for page in self._waiting:
                self._parts.swap.free_page_and_swap_cache(page)
            self._waiting.clear()

    def tlb_finish_mmu(self, start: int, end: int) -> None:
        """End, or pause: what is gone is no longer resident."""
        words, at = self._parts.words, (self._mm - PAGE_OFFSET >> 2) + self._parts.rss
        words[at] -= min(self._freed, words[at])
        self._freed = 0
        self._flush()

    def _remove_page(self, page: int) -> None:
        """``tlb_remove_page()``."""
        self._need_flush = True
        if self._waiting is None:
            self._parts.swap.free_page_and_swap_cache(page)
            return
        self._waiting.append(page)
        if len(self._waiting) >= FREE_PTE_NR:
            self._flush()

    # -- pages ---------------------------------------------------------------------------------

    def unmap_vmas(self, vmas: Sequence[int], start: int, end: int) -> None:
        """Unmap what the VMAs, lowest first, have from ``start`` to ``end``."""
        for vma in vmas:
            vm_start, vm_end = self._parts.pages.span(vma)
            first, last = max(vm_start, start), min(vm_end, end)
            if self._parts.huge.is_vm_hugetlb_page(vma):
                self._parts.huge.unmap_hugepage_range(vma, first, last)
            else:
                self.unmap_range(first, last)

    def unmap_range(self, start: int, end: int, details: ZapDetails | None = None) -> None:
        """In blocks, after each of which others may run, so the TLB is flushed."""
        if start < end:
            self._parts.tlb.caches.flush_cache_range(self._pgd, start, end)
        while start < end:
            block = min(self._zap_bytes, end - start)
            self._zap_ptes(start, start + block, details)
            start += block
            self._zap_bytes -= block
            if not self._zap_bytes:
                self.tlb_finish_mmu(start - block, start)
                self._zap_bytes = ZAP_BLOCK_SIZE

    def _zap_ptes(self, start: int, end: int, details: ZapDetails | None) -> None:
        """``zap_pte_range()``."""
        if details and not details.check_mapping and not details.nonlinear_vma:
            details = None
        parts, entries = self._parts, self._parts.tables.tables
        for vaddr, ptep in parts.tables.ptes(self._pgd, start, end):
            pte = entries.entry(ptep)
            if not pte_present(pte):
                if details is None:
                    if not parts.ptes.pte_file(pte):
                        parts.swap.free_swap_and_cache(parts.ptes.pte_to_swp_entry(pte))
                    entries.pte_clear(ptep)
                continue
            page = self._counted_page(pte)
            if details is None or not page or self._wanted(page, details):
                self._zap_present(vaddr, ptep, page, details)

    def _counted_page(self, pte: int) -> int:
        """The frame of a PTE; 0 for a device's, or a reserved one, which has no users to count."""
        if pte_pfn(pte) >= self._parts.statics.max_mapnr:
            return 0
        page = self._parts.memmap.page(pte_pfn(pte))
        return 0 if self._parts.memmap.reserved(page) else page

    def _wanted(self, page: int, details: ZapDetails) -> bool:
        """Whether truncation, or its like, means this page."""
        memmap = self._parts.memmap
        mapping = self._parts.words[memmap.word(page, memmap.mapping_word)]
        if details.check_mapping and details.check_mapping != mapping:
            return False
        index = self._parts.pages.index(page)
        return not details.nonlinear_vma or details.first_index <= index <= details.last_index

    def _zap_present(self, vaddr: int, ptep: int, page: int, details: ZapDetails | None) -> None:
        parts, entries = self._parts, self._parts.tables.tables
        pte = entries.ptep_get_and_clear(ptep)
        self._need_flush = True
        parts.events.page_unmapped(self._pgd, vaddr)
        if not page:
            return
        vma, index = details.nonlinear_vma if details else 0, parts.pages.index(page)
        if vma and parts.pages.linear_page_index(vma, vaddr) != index:
            entries.set_pte(ptep, parts.ptes.pgoff_to_pte(index))
        if pte_dirty(pte):
            parts.set_page_dirty(page)
        if not parts.pages.anon(page) and pte_young(pte):
            parts.lru.mark_page_accessed(page)
        self._freed += 1
        parts.rmap.remove(self._mm, page, ptep)
        self._remove_page(page)

    # -- page tables ---------------------------------------------------------------------------

    def clear_page_range(self, first: int, last: int) -> None:
        """Free the page tables that lie wholly between two addresses; they must map nothing."""
        tables = self._parts.tables
        size = tables.shape.pmd_size
        for vaddr in range(-(-first // size) * size, last - size + 1, size):
            if not tables.has_table(self._pgd, vaddr):
                continue
            table = tables.detach_table(tables.pmd_offset(self._pgd, vaddr))
            tables.count_tables(self._mm, -1)
            self._parts.rmap.table_freed(table)
            self._remove_page(self._parts.memmap.page(table >> PAGE_SHIFT))
