# SPDX-License-Identifier: GPL-2.0-or-later
"""Putting pages of files at addresses of one's own choice.

Models linux-2.6.11 ``mm/fremap.c``: ``install_page()``, ``install_file_pte()`` (book 4.8). Where
``remap_file_pages()`` was, a PTE that is not present may hold which page of the file belongs there,
with the dirty bit as its mark. In RAM: PTEs, ``mm->rss``, counts of frames.

What can fail: no memory for a page table, ``-ENOMEM``; a frame that its file has lost meanwhile,
``-EINVAL``.
"""

from kernel_model.arch_i386.page import PAGE_OFFSET, PAGE_SHIFT, PAGE_SIZE
from kernel_model.arch_i386.pgtable import mk_pte, pte_dirty, pte_pfn, pte_present
from kernel_model.arch_i386.tlb import Tlb
from kernel_model.errno import EINVAL, ENOMEM
from kernel_model.image import KernelImage
from kernel_model.mm.memory.rights import user_rights
from kernel_model.mm.memory.tables import UserTables
from kernel_model.mm.page_alloc import PageAllocator
from kernel_model.mm.rmap.interface import ReverseMap
from kernel_model.mm.rmap.one_pte import SetPageDirty
from kernel_model.mm.swap_state import SwapCache
from kernel_model.mm.swapops import FilePtes


class FilePages:
    """``install_page()`` and ``install_file_pte()`` of one machine."""

    def __init__(
        self,
        image: KernelImage,
        allocator: PageAllocator,
        tables: UserTables,
        swap: SwapCache,
        ptes: FilePtes,
        tlb: Tlb,
        rmap: ReverseMap,
        set_page_dirty: SetPageDirty,
    ) -> None:
        self.ptes = ptes
        self._image = image
        self._words = image.ram.words
        self._statics = image.statics
        self._events = image.events
        self._allocator = allocator
        self._memmap = allocator.memmap
        self._tables = tables
        self._entries = tables.tables
        self._swap = swap
        self._tlb = tlb
        self._rmap = rmap
        self._set_page_dirty = set_page_dirty
        structs = image.structs
        vma = structs.vm_area_struct
        self._vm_ops, self._vm_flags = vma.word("vm_ops"), vma.word("vm_flags")
        self._populate = structs.vm_operations_struct.word("populate")
        self._rss = structs.mm_struct.word("rss")

    def populate_of(self, vma: int) -> int:
        """``vma->vm_ops->populate``; 0: the file system has none."""
        vm_ops = self._words[(vma - PAGE_OFFSET >> 2) + self._vm_ops]
        return self._words[(vm_ops - PAGE_OFFSET >> 2) + self._populate] if vm_ops else 0

    def install_page(self, mm: int, vma: int, vaddr: int, page: int, prot: int) -> int:
        """Map a frame of the VMA's file, whose reference is the mapping's now; 0, or an error."""
        pgd = self._tables.pgd(mm)
        ptep = self._tables.pte_alloc_map(mm, pgd, vaddr) if self._rmap.reserve() else 0
        if not ptep:
            return -ENOMEM
        error = self._install(mm, pgd, vma, vaddr, ptep, page, prot)
        self._tables.pte_unmap(ptep)
        return error

    def _install(
        self, mm: int, pgd: int, vma: int, vaddr: int, ptep: int, page: int, prot: int
    ) -> int:
        mapping = self._words[self._memmap.word(page, self._memmap.mapping_word)]
        index = self._words[self._memmap.word(page, self._memmap.index_word)]
        if not mapping or index >= self._pages_of_file(mapping):
            return -EINVAL
        self._zap_pte(mm, pgd, vaddr, ptep)
        self._words[(mm - PAGE_OFFSET >> 2) + self._rss] += 1
        self._tlb.caches.flush_icache_page(page)
        pte, flags = mk_pte(self._memmap.pfn(page), prot), self._flags(vma)
        self._events.page_mapped(pgd, vaddr, pte_pfn(pte), user_rights(flags))
        self._entries.set_pte(ptep, pte)
        self._rmap.add_file(page, ptep)
        self._tlb.update_mmu_cache(vaddr, pte)
        return 0

    def install_file_pte(self, mm: int, vaddr: int, pgoff: int) -> int:
        """Note which page of the file belongs at an address; a fault will fetch it. 0, or an
        error."""
        pgd = self._tables.pgd(mm)
        ptep = self._tables.pte_alloc_map(mm, pgd, vaddr)
        if not ptep:
            return -ENOMEM
        self._zap_pte(mm, pgd, vaddr, ptep)
        pte = self.ptes.pgoff_to_pte(pgoff)
        self._entries.set_pte(ptep, pte)
        self._tables.pte_unmap(ptep)
        self._tlb.update_mmu_cache(vaddr, pte)
        return 0

    def _flags(self, vma: int) -> int:
        return self._words[(vma - PAGE_OFFSET >> 2) + self._vm_flags]

    def _pages_of_file(self, mapping: int) -> int:
        """Pages that a file has, the last one perhaps in part."""
        structs, image = self._image.structs, self._image
        host = int(image.at(structs.address_space, mapping).host)
        return int(image.at(structs.inode, host).i_size) + PAGE_SIZE - 1 >> PAGE_SHIFT

    def _zap_pte(self, mm: int, pgd: int, vaddr: int, ptep: int) -> None:
        """Whatever is at the address goes."""
        pte = self._entries.entry(ptep)
        if not pte:
            return
        if not pte_present(pte):
            if not self.ptes.pte_file(pte):
                self._swap.free_swap_and_cache(self.ptes.pte_to_swp_entry(pte))
            self._entries.pte_clear(ptep)
            return
        self._tlb.caches.flush_cache_page(pgd, vaddr)
        pte = self._entries.ptep_get_and_clear(ptep)
        self._tlb.flush_tlb_page(pgd, vaddr)
        self._events.page_unmapped(pgd, vaddr)
        if pte_pfn(pte) >= self._statics.max_mapnr:
            return
        page = self._memmap.page(pte_pfn(pte))
        if not self._memmap.reserved(page):
            if pte_dirty(pte):
                self._set_page_dirty(page)
            self._rmap.remove(mm, page, ptep)
            self._allocator.put_page(page)
            self._words[(mm - PAGE_OFFSET >> 2) + self._rss] -= 1
