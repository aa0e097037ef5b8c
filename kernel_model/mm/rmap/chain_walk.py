# SPDX-License-Identifier: GPL-2.0-or-later
"""Who maps a frame, read off its chain of PTEs.

Models linux-2.6.0 ``mm/rmap.c``: ``page_referenced()``, ``try_to_unmap()`` (book 3.10). Every PTE
is there, so those of ``remap_file_pages()`` are no special case; the VMA is looked up by the
address, for its flags. In RAM: what :mod:`~kernel_model.mm.rmap.one_pte` changes. What can fail: a
frame that is not locked, or a reserved one, is a :class:`~kernel_model.errors.KernelBug`.
"""

from collections.abc import Callable, Iterator

from kernel_model.errors import KernelBug
from kernel_model.image import KernelImage
from kernel_model.mm.page_alloc import PageAllocator
from kernel_model.mm.rmap.interface import SwapResult
from kernel_model.mm.rmap.one_pte import PteUnmapper
from kernel_model.mm.rmap.pte_chain import PteChains
from kernel_model.structs.linux_2_6.mm import VM_LOCKED, VM_RESERVED

FindVma = Callable[[int, int], int]
"""``find_vma(mm, address)``."""


class ChainWalk:
    """``page_referenced()`` and ``try_to_unmap()`` of one machine."""

    def __init__(
        self,
        image: KernelImage,
        allocator: PageAllocator,
        chains: PteChains,
        unmapper: PteUnmapper,
        find_vma: FindVma,
    ) -> None:
        self._memmap = allocator.memmap
        self._chains = chains
        self._pages = chains.pages
        self._ptes = unmapper
        self._find_vma = find_vma
        flags = image.constants.page_flags
        self._locked, self._referenced = flags.locked, flags.referenced
        self.mapcount = chains.mapcount
        self.mapped = chains.mapped

    def named(self, page: int) -> Iterator[int]:
        return self._chains.ptes(page)

    def page_referenced(self, page: int, is_locked: bool) -> int:
        memmap = self._memmap
        referenced = int(memmap.test(page, self._referenced))
        memmap.clear_bit(page, self._referenced)
        for paddr in self._chains.ptes(page):
            mm, vaddr = self._chains.owner(paddr)
            ptep = self._ptes.rmap_ptep_map(paddr)
            referenced += self._ptes.clear_flush_young(mm, vaddr, ptep)
            self._ptes.pte_unmap(ptep)
        self._chains.collapse(page)
        return referenced

    def try_to_unmap(self, page: int) -> SwapResult:
        memmap = self._memmap
        if memmap.reserved(page) or not memmap.test(page, self._locked):
            pfn = memmap.pfn(page)
            raise KernelBug("rmap.c", 0, f"frame {pfn:#x} is reserved or not locked, and unmapped")
        for paddr in list(self._chains.ptes(page)):
            mm, vaddr = self._chains.owner(paddr)
            vma = self._find_vma(mm, vaddr)
            # A VMA that is being moved has its pages at an address that is nobody's.
            if not vma or self._pages.span(vma)[0] > vaddr:
                return SwapResult.FAIL
            if self._pages.vm_flags(vma) & (VM_LOCKED | VM_RESERVED):
                return SwapResult.FAIL
            ptep = self._ptes.rmap_ptep_map(paddr)
            self._ptes.unmap(page, vma, vaddr, ptep)
            self._ptes.pte_unmap(ptep)
        return SwapResult.AGAIN if self._chains.mapped(page) else SwapResult.SUCCESS
