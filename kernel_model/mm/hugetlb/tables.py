# SPDX-License-Identifier: GPL-2.0-or-later
"""Entries of the middle directory that map huge pages, in place of page tables.

Models linux-2.6.11 ``arch/i386/mm/hugetlbpage.c`` (book 3.10): ``set_huge_pte()``,
``hugetlb_prefault()``, ``unmap_hugepage_range()``, ``copy_hugetlb_page_range()``,
``follow_hugetlb_page()``. Huge pages never fault: they are all mapped when the VMA comes to be.
A huge PTE has the bits of a PTE, and PSE. In RAM: these entries, users of huge pages, ``mm->rss``.

``rss`` is counted as in 2.6.11: unmapping takes off the whole range, whether a truncation, or a
mapping that failed half way, had left anything there or not. A child of a process with a
truncated mapping has the same holes; 2.6.11 counts for each a user of frame 0.

What can fail: ``-ENOMEM`` from whoever is asked for pages; what is mapped so far stays, for the
caller to unmap.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

from kernel_model.arch_i386.page import PAGE_OFFSET, PAGE_SHIFT, PAGE_SIZE
from kernel_model.arch_i386.pgtable import (
    PAGE_ACCESSED,
    PAGE_DIRTY,
    PAGE_PSE,
    PAGE_RW,
    pte_pfn,
)
from kernel_model.arch_i386.tlb import Tlb
from kernel_model.errors import KernelBug
from kernel_model.image import KernelImage
from kernel_model.mm.hugetlb.geometry import HugePages
from kernel_model.mm.memory.rights import user_rights
from kernel_model.mm.page_alloc import PageAllocator
from kernel_model.mm.rmap.interface import ReverseMap
from kernel_model.mm.rmap.mapped_pages import MappedPages
from kernel_model.structs.linux_2_6.mm import VM_HUGETLB
from kernel_model.structs.mm import VM_WRITE

if TYPE_CHECKING:
    from kernel_model.mm.memory.linux_2_6.tables import CountedTables

GetHugePage = Callable[[int], int]
"""A huge page of a file by its huge index, with a reference for the entry; below 0 an error."""


class HugePageTables:
    """The huge PTEs of every address space of a machine."""

    def __init__(
        self,
        image: KernelImage,
        allocator: PageAllocator,
        tables: "CountedTables",
        tlb: Tlb,
        rmap: ReverseMap,
    ) -> None:
        self.huge = HugePages.of(pae=image.config.pae)
        self._words = image.ram.words
        self._events = image.events
        self._allocator = allocator
        self._memmap = allocator.memmap
        self._tables = tables
        self._entries = tables.tables
        self._tlb = tlb
        self._rmap = rmap
        self._pages = MappedPages(image, allocator.memmap)
        vma = image.structs.vm_area_struct
        self._vm_pgoff, self._vm_page_prot = vma.word("vm_pgoff"), vma.word("vm_page_prot")

    # -- questions -----------------------------------------------------------------------------

    def is_vm_hugetlb_page(self, vma: int) -> bool:
        """Whether huge pages are what the VMA maps."""
        return bool(self._pages.vm_flags(vma) & VM_HUGETLB)

    def huge_index(self, vma: int, address: int) -> int:
        """Which huge page of the file stands at ``address``."""
        pgoff = self._words[(vma - PAGE_OFFSET >> 2) + self._vm_pgoff]
        start, _ = self._pages.span(vma)
        return (address - start >> self.huge.shift) + (pgoff >> self.huge.order)

    def pmd_huge(self, pmd: int) -> bool:
        """A huge page, rather than a page table."""
        return bool(pmd & PAGE_PSE)

    def follow_huge_pmd(self, address: int, pmd: int) -> int:
        """The ``struct page *`` of the frame at ``address``, within the huge page of ``pmd``."""
        inside = address & self.huge.size - 1
        return self._memmap.page(pte_pfn(pmd & -self.huge.size) + (inside >> PAGE_SHIFT))

    def follow_hugetlb_page(self, mm: int, address: int) -> int:
        """The same by the page tables of ``mm``; 0: a truncation has taken the huge page."""
        pmd = self._entries.entry(self._huge_pte_offset(mm, address))
        return self.follow_huge_pmd(address, pmd) if pmd else 0

    def _huge_pte_offset(self, mm: int, address: int) -> int:
        """Where the entry for ``address`` lies. The middle directory is there: i386 has all."""
        return self._tables.pmd_offset(self._tables.pgd(mm), address)

    def _range(self, start: int, end: int) -> range:
        """The beginning of each huge page."""
        return range(start, end, self.huge.size)

    # -- mapping -------------------------------------------------------------------------------

    def hugetlb_prefault(self, mm: int, vma: int, get_page: GetHugePage) -> int:
        """Map all of the VMA. 0, or what ``get_page`` failed with."""
        start, end = self._pages.span(vma)
        if self.huge.is_aligned_hugepage_range(start, end - start):
            raise KernelBug("hugetlbpage.c", 200, "a VMA is not made of whole huge pages")
        for address in self._range(start, end):
            ptep = self._huge_pte_offset(mm, address)
            if self._entries.entry(ptep):
                self._free_page_table(mm, ptep)
            page = get_page(self.huge_index(vma, address))
            if page < 0:
                return page
            self._set_huge_pte(mm, vma, address, page, ptep)
        return 0

    def _free_page_table(self, mm: int, pmdp: int) -> None:
        """A page table that maps nothing any more was left where a huge page shall be."""
        table = self._tables.detach_table(pmdp)
        self._tables.count_tables(mm, -1)
        self._rmap.table_freed(table)
        self._allocator.put_page(self._memmap.page(table >> PAGE_SHIFT))

    def _set_huge_pte(self, mm: int, vma: int, address: int, page: int, ptep: int) -> None:
        at, flags = vma - PAGE_OFFSET >> 2, self._pages.vm_flags(vma)
        pfn, prot = self._memmap.pfn(page), self._words[at + self._vm_page_prot]
        self._announce(self._tables.pgd(mm), address, pfn, flags)
        self._pages.count_rss(mm, self.huge.frames)
        entry = pfn << PAGE_SHIFT | prot
        entry = entry | PAGE_RW | PAGE_DIRTY if flags & VM_WRITE else entry & ~PAGE_RW
        self._entries.set_pte(ptep, entry | PAGE_ACCESSED | PAGE_PSE)

    def _announce(self, pgd: int, address: int, pfn: int, flags: int) -> None:
        """Every page of the huge page means its frame now."""
        # The pages are shared, or nobody may write to them: there is nothing to copy.
        rights = user_rights(flags, own=True)
        for number in range(self.huge.frames):
            self._events.page_mapped(pgd, address + number * PAGE_SIZE, pfn + number, rights)

    def copy_hugetlb_page_range(self, dst: int, src: int, vma: int) -> int:
        """A child maps the same huge pages, as its parent does: 0."""
        flags, pgd = self._pages.vm_flags(vma), self._tables.pgd(dst)
        for address in self._range(*self._pages.span(vma)):
            entry = self._entries.entry(self._huge_pte_offset(src, address))
            if entry:
                pfn = pte_pfn(entry & -self.huge.size)
                self._announce(pgd, address, pfn, flags)
                self._allocator.get_page(self._memmap.page(pfn))
            self._entries.set_pte(self._huge_pte_offset(dst, address), entry)
            self._pages.count_rss(dst, self.huge.frames)
        return 0

    # -- unmapping -----------------------------------------------------------------------------

    def unmap_hugepage_range(self, vma: int, start: int, end: int) -> None:
        """Unmap whole huge pages, and flush. Frames go to the pool before the flush, but nobody
        runs meanwhile who could see them."""
        if self.huge.is_aligned_hugepage_range(start, end):
            raise KernelBug("hugetlbpage.c", 172, "half a huge page shall be unmapped")
        mm = self._pages.mm(vma)
        pgd = self._tables.pgd(mm)
        for address in self._range(start, end):
            entry = self._entries.ptep_get_and_clear(self._huge_pte_offset(mm, address))
            if not entry:
                continue
            for number in range(self.huge.frames):
                self._events.page_unmapped(pgd, address + number * PAGE_SIZE)
            self._allocator.put_page(self._memmap.page(pte_pfn(entry & -self.huge.size)))
        self._pages.count_rss(mm, -(end - start >> PAGE_SHIFT))
        self._tlb.flush_tlb_range(pgd, start, end)
