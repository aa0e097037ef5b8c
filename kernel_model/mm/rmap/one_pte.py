# SPDX-License-Identifier: GPL-2.0-or-later
"""What reclaim does at one PTE that names a frame, whatever led it there.

Models the common end of linux-2.6.11 ``mm/rmap.c: page_referenced_one()``,
``try_to_unmap_one()`` and ``try_to_unmap_cluster()`` (book 3.10). In RAM: the PTE, which
afterwards holds the frame's swap slot, or nothing, or the page of the file where address and page
do not go together; ``mm->rss``, ``mm->mmlist``, counts of the frame and of the slot. What can fail:
an anonymous frame without a slot is a :class:`~kernel_model.errors.KernelBug`.
"""

from collections.abc import Callable

from kernel_model.arch_i386.pgtable import PAGE_ACCESSED, pte_dirty, pte_pfn, pte_present
from kernel_model.arch_i386.tlb import Tlb
from kernel_model.errors import KernelBug
from kernel_model.image import KernelImage
from kernel_model.lists import Lists
from kernel_model.mm.memory.tables import UserTables
from kernel_model.mm.page_alloc import PageAllocator
from kernel_model.mm.rmap.interface import ReverseMap
from kernel_model.mm.rmap.mapped_pages import MappedPages
from kernel_model.mm.swapfile import SwapAreas
from kernel_model.mm.swapops import FilePtes

SetPageDirty = Callable[[int], None]
"""``set_page_dirty(page)``, which also tells the frame's address space."""


class SwappedSpaces:
    """``init_mm.mmlist``: the address spaces that have pages in swap."""

    def __init__(self, image: KernelImage) -> None:
        self._lists = Lists(image.ram)
        self._mmlist = image.structs.mm_struct.offset("mmlist")
        self._init_mm = image.symbol("init_mm")

    def join(self, mm: int, after: int = 0) -> None:
        """``mm`` has a page in swap now: behind another address space, or at the front."""
        link = mm + self._mmlist
        if self._lists.empty(link):
            self._lists.add(link, (after or self._init_mm) + self._mmlist)


class PteUnmapper:
    """PTEs of one machine, as reclaim changes them."""

    def __init__(
        self,
        image: KernelImage,
        allocator: PageAllocator,
        tables: UserTables,
        areas: SwapAreas,
        ptes: FilePtes,
        tlb: Tlb,
        rmap: ReverseMap,
        set_page_dirty: SetPageDirty,
    ) -> None:
        self._events = image.events
        self._allocator = allocator
        self._memmap = allocator.memmap
        self._tables = tables
        self._entries = tables.tables
        self._areas = areas
        self._ptes = ptes
        self._tlb = tlb
        self._rmap = rmap
        self._set_page_dirty = set_page_dirty
        self._spaces = SwappedSpaces(image)
        self.pages = MappedPages(image, allocator.memmap)
        self.rmap_ptep_map, self.pte_unmap = tables.rmap_ptep_map, tables.pte_unmap

    # -- pointers to PTEs, until pte_unmap() ---------------------------------------------------

    def find(self, mm: int, vaddr: int, page: int) -> int:
        """``page_check_address()``: the PTE of ``vaddr``; 0: it names no such frame."""
        ptep = self.present(mm, vaddr)
        if ptep and self.frame(ptep) != self._memmap.pfn(page):
            self.pte_unmap(ptep)
            return 0
        return ptep

    def present(self, mm: int, vaddr: int) -> int:
        """The PTE of ``vaddr``, if it is present; else 0."""
        ptep = self._tables.pte_offset_map(self._tables.pgd(mm), vaddr)
        if ptep and not pte_present(self._entries.entry(ptep)):
            self.pte_unmap(ptep)
            return 0
        return ptep

    def paddr(self, ptep: int) -> int:
        """Where in physical memory the PTE stands."""
        return self._entries.ptep_to_paddr(ptep)

    # -- what becomes of a PTE -----------------------------------------------------------------

    def frame(self, ptep: int) -> int:
        """The PFN that a PTE names."""
        return pte_pfn(self._entries.entry(ptep))

    def clear_flush_young(self, mm: int, vaddr: int, ptep: int) -> bool:
        """``ptep_clear_flush_young()``: whether the page was used; the sign of it is taken away."""
        pte = self._entries.entry(ptep)
        if not pte & PAGE_ACCESSED:
            return False
        self._entries.set_pte(ptep, pte & ~PAGE_ACCESSED)
        self._tlb.flush_tlb_page(self._tables.pgd(mm), vaddr)
        return True

    def unmap(self, page: int, vma: int, vaddr: int, ptep: int) -> None:
        """Take the page away; the PTE remembers where it can be had again."""
        pages, entries = self.pages, self._entries
        mm = pages.mm(vma)
        pgd = self._tables.pgd(mm)
        self._tlb.caches.flush_cache_page(pgd, vaddr)
        pte = entries.ptep_get_and_clear(ptep)
        # Who asked whether the page was used has flushed it then; 2.6.0 does not ask.
        self._tlb.flush_tlb_page(pgd, vaddr)
        if pages.anon(page):
            self._to_swap(mm, page, ptep)
        elif pages.index(page) != pages.linear_page_index(vma, vaddr):
            entries.set_pte(ptep, self._ptes.pgoff_to_pte(pages.index(page)))
        # The dirt moves to the frame, now that the PTE is gone.
        if pte_dirty(pte):
            self._set_page_dirty(page)
        self._events.page_unmapped(pgd, vaddr)
        pages.count_rss(mm, -1)
        self._rmap.remove(mm, page, ptep)
        self._allocator.put_page(page)

    def _to_swap(self, mm: int, page: int, ptep: int) -> None:
        entry = self.pages.swap_entry(page)
        if not entry:
            pfn = self._memmap.pfn(page)
            raise KernelBug("rmap.c", 0, f"frame {pfn:#x} has no swap slot, and is unmapped")
        self._areas.swap_duplicate(entry)
        self._spaces.join(mm)
        self._entries.set_pte(ptep, self._ptes.swp_entry_to_pte(entry))
