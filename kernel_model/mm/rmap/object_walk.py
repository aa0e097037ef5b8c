# SPDX-License-Identifier: GPL-2.0-or-later
"""Who maps a frame, found through its object.

Models linux-2.6.11 ``mm/rmap.c``: ``page_referenced()``, ``try_to_unmap()`` (book 3.10). From
``page->mapping`` come the VMAs: those on the list of an ``anon_vma``, or those of the file's prio
tree that map the page. In each of them the page can be at one address only; whether it is there,
the page table says. VMAs of ``remap_file_pages()`` have no such address
(:mod:`~kernel_model.mm.rmap.nonlinear`).

In RAM: what :mod:`~kernel_model.mm.rmap.one_pte` changes. What can fail: a frame that is not
locked, or a reserved one, is a :class:`~kernel_model.errors.KernelBug`.
"""

from collections.abc import Iterator
from typing import Final

from kernel_model.arch_i386.page import PAGE_OFFSET
from kernel_model.errors import KernelBug
from kernel_model.image import KernelImage
from kernel_model.mm.page_alloc import PageAllocator
from kernel_model.mm.rmap.interface import AnonVmas, FileVmas, SwapResult
from kernel_model.mm.rmap.nonlinear import NonlinearVmas
from kernel_model.mm.rmap.object_based import ObjectReverseMap
from kernel_model.mm.rmap.one_pte import PteUnmapper
from kernel_model.structs.linux_2_6.mm import VM_LOCKED, VM_RESERVED
from kernel_model.structs.mm import VM_MAYSHARE

_LOCKED_SHARED: Final = VM_LOCKED | VM_MAYSHARE


class ObjectWalk:
    """``page_referenced()`` and ``try_to_unmap()`` of one machine."""

    def __init__(
        self,
        image: KernelImage,
        allocator: PageAllocator,
        rmap: ObjectReverseMap,
        anon_vmas: AnonVmas,
        file_vmas: FileVmas,
        unmapper: PteUnmapper,
    ) -> None:
        self._memmap = allocator.memmap
        self._rmap = rmap
        self._pages = rmap.pages
        self._anon_vmas = anon_vmas
        self._file_vmas = file_vmas
        self._ptes = unmapper
        self._words = image.ram.words
        self._i_mmap = image.structs.address_space.offset("i_mmap")
        self._nonlinear = NonlinearVmas(image, allocator, unmapper)
        flags = image.constants.page_flags
        self._locked, self._referenced = flags.locked, flags.referenced
        self.mapcount = rmap.mapcount
        self.mapped = rmap.mapped

    # -- finding -------------------------------------------------------------------------------

    def _mapping(self, page: int) -> int:
        return self._words[(page - PAGE_OFFSET >> 2) + self._memmap.mapping_word]

    def _vmas(self, page: int) -> Iterator[int]:
        """The VMAs that may map the frame."""
        if anon_vma := self._pages.anon_vma(page):
            if self._rmap.mapped(page):
                yield from self._anon_vmas.vmas(anon_vma)
        elif mapping := self._mapping(page):
            index = self._pages.index(page)
            yield from self._file_vmas.overlapping(mapping + self._i_mmap, index, index)

    def _place(self, page: int, vma: int) -> tuple[int, int]:
        """The address at which the VMA maps the frame, and its PTE until ``pte_unmap()``; (0, 0):
        it does not."""
        mm = self._pages.mm(vma)
        vaddr = self._pages.vma_address(page, vma) if self._pages.rss(mm) else None
        if vaddr is None:
            return 0, 0
        ptep = self._ptes.find(mm, vaddr, page)
        return (vaddr, ptep) if ptep else (0, 0)

    def named(self, page: int) -> Iterator[int]:
        for vma in self._vmas(page):
            _, ptep = self._place(page, vma)
            if ptep:
                paddr = self._ptes.paddr(ptep)
                self._ptes.pte_unmap(ptep)
                yield paddr
        if not self._pages.anon(page) and (mapping := self._mapping(page)):
            yield from self._nonlinear.ptes(mapping, page)

    # -- asking --------------------------------------------------------------------------------

    def page_referenced(self, page: int, is_locked: bool) -> int:
        memmap = self._memmap
        referenced = int(memmap.test(page, self._referenced))
        memmap.clear_bit(page, self._referenced)
        if not self._rmap.mapped(page) or not self._mapping(page):
            return referenced
        if self._pages.anon(page) or is_locked:
            return referenced + self._uses(page)
        if memmap.test(page, self._locked):
            return referenced + 1
        # Its mapping must not go meanwhile.
        memmap.set_bit(page, self._locked)
        referenced += self._uses(page)
        memmap.clear_bit(page, self._locked)
        return referenced

    def _uses(self, page: int) -> int:
        """How many PTEs were used since the last look; the search ends with the last PTE, or
        with a VMA of a shared file that is locked into memory."""
        pages, left, used = self._pages, self._rmap.mapcount(page), 0
        anon = pages.anon(page)
        for vma in self._vmas(page):
            if not anon and pages.vm_flags(vma) & _LOCKED_SHARED == _LOCKED_SHARED:
                return used + 1
            vaddr, ptep = self._place(page, vma)
            if ptep:
                used += self._ptes.clear_flush_young(pages.mm(vma), vaddr, ptep)
                self._ptes.pte_unmap(ptep)
                left -= 1
            if not left:
                break
        return used

    # -- unmapping -----------------------------------------------------------------------------

    def try_to_unmap(self, page: int) -> SwapResult:
        memmap = self._memmap
        if memmap.reserved(page) or not memmap.test(page, self._locked):
            pfn = memmap.pfn(page)
            raise KernelBug("rmap.c", 0, f"frame {pfn:#x} is reserved or not locked, and unmapped")
        result = SwapResult.AGAIN
        for vma in list(self._vmas(page)):
            result = self._try_to_unmap_one(page, vma)
            if result is SwapResult.FAIL or not self._rmap.mapped(page):
                break
        else:
            if not self._pages.anon(page) and self._rmap.mapped(page):
                result = self._nonlinear.age(self._mapping(page), self.mapcount(page), result)
        return result if self._rmap.mapped(page) else SwapResult.SUCCESS

    def _try_to_unmap_one(self, page: int, vma: int) -> SwapResult:
        """Unmap the frame from one VMA, unless it is locked there or was used lately."""
        vaddr, ptep = self._place(page, vma)
        if not ptep:
            return SwapResult.AGAIN
        result = self._unless_in_use(page, vma, vaddr, ptep)
        self._ptes.pte_unmap(ptep)
        return result

    def _unless_in_use(self, page: int, vma: int, vaddr: int, ptep: int) -> SwapResult:
        pages = self._pages
        if pages.vm_flags(vma) & (VM_LOCKED | VM_RESERVED):
            return SwapResult.FAIL
        if self._ptes.clear_flush_young(pages.mm(vma), vaddr, ptep):
            return SwapResult.FAIL
        # Somebody beside the cache, the caller and the PTEs has it, say get_user_pages(): a write
        # that comes later would get a copy, and that somebody would never see it.
        if pages.swap_entry(page) and self._memmap.count(page) != self.mapcount(page) + 2:
            return SwapResult.FAIL
        self._ptes.unmap(page, vma, vaddr, ptep)
        return SwapResult.AGAIN
