# SPDX-License-Identifier: GPL-2.0-or-later
"""Pages of a user address space: putting a frame at an address, and taking all away again.

Models linux-2.4.22 ``fs/exec.c: put_dirty_page()`` and ``mm/memory.c: zap_page_range()``,
``clear_page_tables()`` (book 3.3-3.5). In RAM: the page tables below a page directory. The
events say what each address was meant to hold; the page tables are what gets checked.
"""

from collections.abc import Iterator

from kernel_model.arch_i386.page import PAGE_OFFSET, PAGE_SHIFT
from kernel_model.arch_i386.pgalloc import PageTableAllocator
from kernel_model.arch_i386.pgtable import (
    PAGE_PRESENT,
    PAGE_RW,
    mk_pte,
    pmd_none,
    pte_none,
    pte_pfn,
)
from kernel_model.arch_i386.tlb import Tlb
from kernel_model.errors import KernelBug
from kernel_model.events import Rights
from kernel_model.image import KernelImage
from kernel_model.mm.gfp import GFP_HIGHUSER
from kernel_model.mm.page_alloc import PageAllocator


class UserMemory:
    """Operations on user address spaces; ``pgd`` is the physical address of a page directory."""

    def __init__(
        self, image: KernelImage, allocator: PageAllocator, tables: PageTableAllocator, tlb: Tlb
    ) -> None:
        self._events = image.events
        self._allocator = allocator
        self._page_tables = tables
        self._tables = tables.tables
        self._tlb = tlb

    def new_page(self, pgd: int, vaddr: int, prot: int) -> int:
        """Take a frame for ``vaddr`` and map it with protection ``prot``.

        Returns the PFN; -1 when memory is out, and then nothing has changed.
        """
        memmap = self._allocator.memmap
        page = self._allocator.alloc_page(GFP_HIGHUSER, "user page")
        if not page:
            return -1
        pfn = memmap.pfn(page)
        pmdp = self._tables.pmd_offset(self._tables.pgd_offset(pgd, vaddr), vaddr)
        ptep = self._page_tables.pte_alloc(pmdp, vaddr)
        if not ptep:
            self._give_back(pfn)
            return -1
        if not pte_none(self._tables.entry(ptep)):
            raise KernelBug("exec.c", 320, f"the page at {vaddr:#x} is mapped already")
        self._tables.set_pte(ptep, mk_pte(pfn, prot))
        rights = Rights(write=bool(prot & PAGE_RW), user=True)
        self._events.page_mapped(pgd, vaddr, pfn, rights)
        self._tlb.flush_tlb_page(pgd, vaddr)
        return pfn

    def _give_back(self, pfn: int) -> None:
        self._allocator.free_page(self._allocator.memmap.page(pfn))

    def _page_table_entries(self, pgd: int) -> Iterator[tuple[int, int]]:
        """(first address, address of the middle entry) of each user page table there is."""
        shape = self._tables.shape
        for vaddr in range(0, PAGE_OFFSET, shape.pmd_size):
            pmdp = self._tables.pmd_offset(self._tables.pgd_offset(pgd, vaddr), vaddr)
            if not pmd_none(self._tables.entry(pmdp)):
                yield vaddr, pmdp

    def clear_page_tables(self, pgd: int) -> None:
        """Unmap every user page, free its frame, and free the page tables."""
        shape = self._tables.shape
        for start, pmdp in list(self._page_table_entries(pgd)):
            for vaddr in range(start, start + shape.pmd_size, 1 << PAGE_SHIFT):
                pte = self._tables.ptep_get_and_clear(self._tables.pte_offset(pmdp, vaddr))
                if pte & PAGE_PRESENT:
                    self._events.page_unmapped(pgd, vaddr)
                    self._give_back(pte_pfn(pte))
            self._page_tables.pte_free(pmdp)
        self._tlb.flush_tlb_mm(pgd)
