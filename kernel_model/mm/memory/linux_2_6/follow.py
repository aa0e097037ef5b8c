# SPDX-License-Identifier: GPL-2.0-or-later
"""The kernel looking at user pages in 2.6.

Models linux-2.6.11 ``mm/memory.c``: ``follow_page()``, ``get_user_pages()`` (book 3.3, 4.6).
Looking at a page is a use of it, and looking at it for writing makes its frame dirty. Who only
reads an anonymous mapping that nobody touched gets the zero page, and no page table is made for it.
Huge pages are never faulted in. In RAM: PG_dirty, PG_referenced, the LRU lists. What can fail: what
can in 2.4; ``-EFAULT`` where truncation took a huge page, whose place 2.6.11 takes for frame 0.
"""

from collections.abc import Callable

from kernel_model.arch_i386.page import PAGE_OFFSET
from kernel_model.arch_i386.pgtable import PAGE_DIRTY, PAGE_RW, pte_pfn, pte_present
from kernel_model.arch_i386.tlb import Tlb
from kernel_model.errno import EFAULT, ENOMEM
from kernel_model.image import KernelImage
from kernel_model.mm.hugetlb.tables import HugePageTables
from kernel_model.mm.memory.fault import ZERO_PFN, Fault, FaultHandler
from kernel_model.mm.memory.follow import PageFollower
from kernel_model.mm.memory.tables import UserTables
from kernel_model.mm.page_alloc import PageAllocator
from kernel_model.mm.rmap.one_pte import SetPageDirty


class PageFollower26(PageFollower):
    """``get_user_pages()`` and its kin of a 2.6 machine."""

    def __init__(
        self,
        image: KernelImage,
        allocator: PageAllocator,
        tables: UserTables,
        faults: FaultHandler,
        find_extend_vma: Callable[[int, int], int],
        set_page_dirty: SetPageDirty,
        huge: HugePageTables,
        tlb: Tlb,
    ) -> None:
        super().__init__(image, allocator, tables, faults, find_extend_vma)
        self._set_page_dirty = set_page_dirty
        self._huge = huge
        self._tlb = tlb

    def follow_page(self, mm: int, address: int, *, write: bool = False) -> int:
        pgd = self._tables.pgd(mm)
        pmd = self._tables.tables.entry(self._tables.pmd_offset(pgd, address))
        if self._huge.pmd_huge(pmd):
            return self._huge.follow_huge_pmd(address, pmd)
        pte = self._tables.pte(pgd, address)
        if not pte_present(pte) or (write and not pte & PAGE_RW):
            return 0
        if pte_pfn(pte) >= self._statics.max_mapnr:
            return 0
        page = self._memmap.page(pte_pfn(pte))
        if write and not pte & PAGE_DIRTY:
            self._set_page_dirty(page)
        self._allocator.lru.mark_page_accessed(page)
        return page

    def _bring_in(
        self, mm: int, vma: int, address: int, write: bool, force: bool
    ) -> tuple[int, int]:
        if self._huge.is_vm_hugetlb_page(vma):
            page = self._huge.follow_hugetlb_page(mm, address)
            return page, 0 if page else -EFAULT
        page, error = self._found(mm, vma, address, write, force)
        if page:
            # Whoever asked will use the frame by another address than the process.
            self._tlb.caches.flush_dcache_page(page)
        return page, error

    def _found(self, mm: int, vma: int, address: int, write: bool, force: bool) -> tuple[int, int]:
        as_written = write
        while not (page := self.follow_page(mm, address, write=as_written)):
            if not as_written and self._untouched(mm, vma, address):
                return self._memmap.page(ZERO_PFN), 0
            fault = self._faults.handle_mm_fault(mm, vma, address, write)
            if fault is Fault.OOM:
                return 0, -ENOMEM
            if fault is Fault.SIGBUS:
                return 0, -EFAULT
            # A page that may not be written to stays read-only even when a debugger has its copy.
            as_written = write and not force
        return page, 0

    def _untouched(self, mm: int, vma: int, address: int) -> bool:
        """``untouched_anonymous_page()``: no page table was needed for it so far."""
        vm_ops = self._words[(vma - PAGE_OFFSET >> 2) + self._vm_ops]
        if vm_ops and self._words[(vm_ops - PAGE_OFFSET >> 2) + self._nopage]:
            return False
        return not self._tables.has_table(self._tables.pgd(mm), address)
