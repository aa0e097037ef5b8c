# SPDX-License-Identifier: GPL-2.0-or-later
"""The kernel looking at user pages: which frame an address has, and bringing pages in.

Models linux-2.4.22 ``mm/memory.c``: ``follow_page()``, ``get_user_pages()``,
``make_pages_present()`` (book 3.3, 4.6). In RAM: what page faults change.

What can fail: ``-EFAULT`` for an address that no VMA allows the access at, ``-ENOMEM``.
"""

from collections.abc import Callable
from typing import Final

from kernel_model.arch_i386.page import PAGE_MASK, PAGE_OFFSET, PAGE_SIZE
from kernel_model.arch_i386.pgtable import PAGE_DIRTY, PAGE_RW, pte_pfn, pte_present
from kernel_model.errno import EFAULT, ENOMEM
from kernel_model.image import KernelImage
from kernel_model.mm.memory.fault import Fault, FaultHandler
from kernel_model.mm.memory.tables import UserTables
from kernel_model.mm.page_alloc import PageAllocator
from kernel_model.structs.mm import (
    VM_IO,
    VM_MAYREAD,
    VM_MAYWRITE,
    VM_READ,
    VM_WRITE,
)

_WRITTEN: Final = PAGE_RW | PAGE_DIRTY


class PageFollower:
    """``get_user_pages()`` and its kin of one machine."""

    def __init__(
        self,
        image: KernelImage,
        allocator: PageAllocator,
        tables: UserTables,
        faults: FaultHandler,
        find_extend_vma: Callable[[int, int], int],
    ) -> None:
        self._image = image
        self._words = image.ram.words
        self._statics = image.statics
        self._allocator = allocator
        self._memmap = allocator.memmap
        self._tables = tables
        self._faults = faults
        self._find_extend_vma = find_extend_vma
        vma = image.structs.vm_area_struct
        self._vm_start, self._vm_end = vma.word("vm_start"), vma.word("vm_end")
        self._vm_flags, self._vm_ops = vma.word("vm_flags"), vma.word("vm_ops")
        self._nopage = image.structs.vm_operations_struct.word("nopage")

    def follow_page(self, mm: int, address: int, *, write: bool = False) -> int:
        """The ``struct page *`` that a process finds at ``address``; 0 if it would fault.

        To be written to, the page must be writable and have been written to.
        """
        pte = self._tables.pte(self._tables.pgd(mm), address)
        if not pte_present(pte) or (write and pte & _WRITTEN != _WRITTEN):
            return 0
        return self._memmap.page(pte_pfn(pte)) if pte_pfn(pte) < self._statics.max_mapnr else 0

    def get_user_pages(
        self, mm: int, start: int, count: int, *, write: bool, force: bool = False
    ) -> tuple[list[int], int]:
        """The frames of ``count`` pages from ``start``, each with a reference, faulted in.

        Returns (frames, error): the frames up to the first that is not to be had, and 0 or
        ``-EFAULT`` or ``-ENOMEM``. ``force`` asks only what the VMA could be changed to allow.
        """
        return self._faulted_in(mm, start, count, write=write, force=force)

    def _faulted_in(
        self, mm: int, start: int, count: int, *, write: bool, force: bool = False
    ) -> tuple[list[int], int]:
        pages: list[int] = []
        address = start & PAGE_MASK
        while len(pages) < count:
            vma = self._find_extend_vma(mm, address)
            if not vma or not self._allowed(vma, write=write, force=force):
                return pages, -EFAULT
            end = self._words[(vma - PAGE_OFFSET >> 2) + self._vm_end]
            while len(pages) < count and address < end:
                page, error = self._bring_in(mm, vma, address, write, force)
                if error:
                    return pages, error
                if page and not self._memmap.reserved(page):
                    self._allocator.get_page(page)
                pages.append(page)
                address += PAGE_SIZE
        return pages, 0

    def _allowed(self, vma: int, *, write: bool, force: bool) -> bool:
        flags = self._words[(vma - PAGE_OFFSET >> 2) + self._vm_flags]
        now, ever = (VM_WRITE, VM_MAYWRITE) if write else (VM_READ, VM_MAYREAD)
        return bool(flags & (ever if force else now)) and not flags & VM_IO

    def _bring_in(
        self, mm: int, vma: int, address: int, write: bool, force: bool
    ) -> tuple[int, int]:
        """The frame at an address, faulted in if need be; 0 and an error: it cannot be had."""
        while not (page := self.follow_page(mm, address, write=write)):
            fault = self._faults.handle_mm_fault(mm, vma, address, write)
            if fault is Fault.OOM:
                return 0, -ENOMEM
            if fault is Fault.SIGBUS:
                return 0, -EFAULT
        return page, 0

    def make_pages_present(self, start: int, end: int) -> int:
        """Fault in every page of the current process from ``start`` to ``end``.

        They are written to where the VMA allows it. 0, or a negative error; -1 if some came.
        """
        mm = int(self._image.current_task.mm)
        vma = self._find_extend_vma(mm, start)
        flags = self._words[(vma - PAGE_OFFSET >> 2) + self._vm_flags] if vma else 0
        count = (end + PAGE_SIZE - 1) // PAGE_SIZE - start // PAGE_SIZE
        pages, error = self._faulted_in(mm, start, count, write=bool(flags & VM_WRITE))
        for page in pages:
            if page:
                self._allocator.put_page(page)
        if len(pages) == count:
            return 0
        # get_user_pages() of the kernel tells of an error only when it has no page to tell of.
        return -1 if pages else error or -1
