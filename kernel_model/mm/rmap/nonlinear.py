# SPDX-License-Identifier: GPL-2.0-or-later
"""VMAs in which address and page do not go together: no way leads from a frame to its PTEs.

Models linux-2.6.11 ``mm/rmap.c``: ``try_to_unmap_cluster()`` and the second half of
``try_to_unmap_file()`` (book 3.10, 4.8). Reclaim goes through such VMAs 32 pages at a time and
unmaps whatever it finds there that was not used since the last round. In RAM: the list
``mapping->i_mmap_nonlinear``; how far the scan of a VMA has come, in bytes, in
``vma->vm_private_data``. What can fail: an anonymous page in such a VMA is a
:class:`~kernel_model.errors.KernelBug`.
"""

from collections.abc import Iterator
from typing import Final

from kernel_model.arch_i386.page import PAGE_OFFSET, PAGE_SIZE
from kernel_model.errors import KernelBug
from kernel_model.image import KernelImage
from kernel_model.lists import Lists
from kernel_model.mm.page_alloc import PageAllocator
from kernel_model.mm.rmap.interface import SwapResult
from kernel_model.mm.rmap.one_pte import PteUnmapper
from kernel_model.structs.linux_2_6.mm import VM_LOCKED, VM_RESERVED

CLUSTER_SIZE: Final = 32 * PAGE_SIZE


class NonlinearVmas:
    """The VMAs of ``remap_file_pages()``, file by file."""

    def __init__(self, image: KernelImage, allocator: PageAllocator, unmapper: PteUnmapper) -> None:
        self._words = image.ram.words
        self._statics = image.statics
        self._memmap = allocator.memmap
        self._ptes = unmapper
        self._pages = unmapper.pages
        self._lists = Lists(image.ram)
        self._head = image.structs.address_space.offset("i_mmap_nonlinear")
        vma = image.structs.vm_area_struct
        self._link = vma.offset("shared")
        self._cursor = vma.word("vm_private_data")

    def vmas(self, mapping: int) -> list[int]:
        """Those of one file, as they stand on its list."""
        return [entry - self._link for entry in self._lists.entries(mapping + self._head)]

    def ptes(self, mapping: int, page: int) -> Iterator[int]:
        """Where the PTEs of such VMAs are that name the frame, found by looking at all."""
        for vma in self.vmas(mapping):
            mm, (start, end) = self._pages.mm(vma), self._pages.span(vma)
            for vaddr in range(start, end, PAGE_SIZE):
                if ptep := self._ptes.find(mm, vaddr, page):
                    paddr = self._ptes.paddr(ptep)
                    self._ptes.pte_unmap(ptep)
                    yield paddr

    # -- the scan ------------------------------------------------------------------------------

    def _scanned(self, vma: int) -> int:
        return self._words[(vma - PAGE_OFFSET >> 2) + self._cursor]

    def _set_scanned(self, vma: int, cursor: int) -> None:
        self._words[(vma - PAGE_OFFSET >> 2) + self._cursor] = cursor

    def _size(self, vma: int) -> int:
        start, end = self._pages.span(vma)
        return end - start

    def age(self, mapping: int, wanted: int, result: SwapResult) -> SwapResult:
        """Unmap some ``wanted`` pages, whichever they are. ``result`` is what the VMAs with an
        address for the page came to."""
        vmas = self.vmas(mapping)
        if not vmas:
            return result
        open_vmas = [
            vma for vma in vmas if not self._pages.vm_flags(vma) & (VM_LOCKED | VM_RESERVED)
        ]
        if not open_vmas:
            return SwapResult.FAIL
        size = max(map(self._size, open_vmas)) + CLUSTER_SIZE - 1 & -CLUSTER_SIZE
        # All VMAs are brought to where the one furthest on is, then go on together.
        reach = max(map(self._scanned, open_vmas)) or CLUSTER_SIZE
        while True:
            for vma in open_vmas:
                wanted = self._scan(vma, reach, wanted)
                if wanted <= 0:
                    return result
            reach += CLUSTER_SIZE
            if reach > size:
                break
        for vma in vmas:
            if not self._pages.vm_flags(vma) & VM_RESERVED:
                self._set_scanned(vma, 0)
        return result

    def _scan(self, vma: int, reach: int, wanted: int) -> int:
        """Go on in one VMA up to ``reach``. Returns how many pages are still wanted."""
        mm, size = self._pages.mm(vma), self._size(vma)
        cursor = self._scanned(vma)
        while self._pages.rss(mm) and cursor < min(reach, size):
            wanted -= self._try_to_unmap_cluster(vma, cursor)
            cursor += CLUSTER_SIZE
            self._set_scanned(vma, cursor)
            if wanted <= 0:
                return wanted
        self._set_scanned(vma, reach)
        return wanted

    def _try_to_unmap_cluster(self, vma: int, cursor: int) -> int:
        """Unmap the pages of 32 neighbours that were not used lately. Returns how many."""
        mm, (start, end) = self._pages.mm(vma), self._pages.span(vma)
        cluster, unmapped = start + cursor & -CLUSTER_SIZE, 0
        for vaddr in range(max(cluster, start), min(cluster + CLUSTER_SIZE, end), PAGE_SIZE):
            if ptep := self._ptes.present(mm, vaddr):
                unmapped += self._unmap_unused(vma, vaddr, ptep)
                self._ptes.pte_unmap(ptep)
        return unmapped

    def _unmap_unused(self, vma: int, vaddr: int, ptep: int) -> bool:
        """Whether a present page was to be had, and is unmapped now."""
        pages, memmap, pfn = self._pages, self._memmap, self._ptes.frame(ptep)
        if pfn >= self._statics.max_mapnr:
            return False
        page = memmap.page(pfn)
        if pages.anon(page):
            raise KernelBug("rmap.c", 0, f"frame {pfn:#x} is anonymous, in a nonlinear VMA")
        if memmap.reserved(page) or self._ptes.clear_flush_young(pages.mm(vma), vaddr, ptep):
            return False
        self._ptes.unmap(page, vma, vaddr, ptep)
        return True
