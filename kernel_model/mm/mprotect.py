# SPDX-License-Identifier: GPL-2.0-or-later
"""Changing what may be done with the pages of a range.

Models linux-2.4.22 ``mm/mprotect.c: sys_mprotect()``, ``mprotect_fixup()`` (book 4.4). VMAs are
cut and merged as need be; the page tables follow through
:class:`~kernel_model.mm.mmap.pages.PageOperations`.

What can fail: a negative error. The part of the range before the place that failed has changed
by then.
"""

from typing import Final

from kernel_model.arch_i386.page import PAGE_MASK, page_align
from kernel_model.arch_i386.pgtable import PROTECTION_MAP
from kernel_model.errno import EACCES, EINVAL, ENOMEM
from kernel_model.mm.mmap.areas import Areas
from kernel_model.mm.mmap.find import Finder
from kernel_model.mm.mmap.link import Links, can_vma_merge
from kernel_model.mm.mmap.pages import PageOperations
from kernel_model.mm.mmap.split import Splitter
from kernel_model.structs.mm import VM_ACCESS, VM_SHARED
from kernel_model.structs.mman import PROT_EXEC, PROT_READ, PROT_WRITE

_U32: Final = 0xFFFFFFFF


class Mprotect:
    """``mprotect()`` in the current address space."""

    def __init__(
        self,
        areas: Areas,
        finder: Finder,
        links: Links,
        splitter: Splitter,
        pages: PageOperations,
    ) -> None:
        self._areas = areas
        self._finder = finder
        self._links = links
        self._splitter = splitter
        self._pages = pages

    def sys_mprotect(self, start: int, length: int, prot: int) -> int:
        """0, or a negative error."""
        if start & ~PAGE_MASK:
            return -EINVAL
        end = start + page_align(length)
        if end > _U32 or prot & ~(PROT_READ | PROT_WRITE | PROT_EXEC):
            return -EINVAL
        if end == start:
            return 0
        return self._protect(self._areas.current_mm, start, end, prot)

    def _protect(self, mm: int, start: int, end: int, prot: int) -> int:
        """VMA by VMA. ``prev`` is the one that ends where the rest of the range begins."""
        vma, prev = self._finder.find_vma_prev(mm, start)
        while True:
            if not vma or self._areas.vma(vma).vm_start > start:
                return -ENOMEM
            area = self._areas.vma(vma)
            newflags = prot | area.vm_flags & ~VM_ACCESS
            if newflags & ~(newflags >> 4) & 0xF:
                return -EACCES
            stop, following = min(area.vm_end, end), area.vm_next
            inside = area.vm_end > end
            prev = self._fixup(vma, prev, start, stop, newflags)
            if not prev:
                return -ENOMEM
            if stop == end:
                if not inside:
                    self._merge_with_next(mm, prev)
                return 0
            start, vma = stop, following

    def _merge_with_next(self, mm: int, prev: int) -> None:
        area = self._areas.vma(prev)
        if not area.vm_file and not area.vm_flags & VM_SHARED:
            self._links.absorb_next(mm, prev)

    def _fixup(self, vma: int, prev: int, start: int, end: int, newflags: int) -> int:
        """``mprotect_fixup()``: one VMA, or the part of it that is in the range.

        Returns the VMA that now ends at ``end``, or goes beyond it; 0: no memory.
        """
        area = self._areas.vma(vma)
        if newflags == area.vm_flags:
            return vma
        before = self._mergeable(vma, prev, newflags)
        if start == area.vm_start and end == area.vm_end:
            last = self._all(vma, prev, newflags, merge=before)
        elif start == area.vm_start:
            last = self._head(vma, prev, end, newflags, merge=before)
        elif end == area.vm_end:
            last = self._splitter.tail(vma, start, newflags, protection=True)
        else:
            last = self._splitter.middle(vma, start, end, newflags, protection=True)
        if last:
            newprot = PROTECTION_MAP[newflags & 0xF]
            self._pages.change_protection(start, end, newprot, newflags)
        return last

    def _mergeable(self, vma: int, prev: int, newflags: int) -> bool:
        """Whether the VMA before takes over what gets ``newflags``."""
        if not prev:
            return False
        area, before = self._areas.vma(vma), self._areas.vma(prev)
        return (
            before.vm_end == area.vm_start
            and can_vma_merge(before, newflags)
            and not area.vm_file
            and not area.vm_flags & VM_SHARED
        )

    def _all(self, vma: int, prev: int, newflags: int, *, merge: bool) -> int:
        if not merge:
            self._splitter.set_flags(vma, newflags, protection=True)
            return vma
        area = self._areas.vma(vma)
        mm = area.vm_mm
        self._areas.vma(prev).vm_end = area.vm_end
        self._links.vma_unlink(mm, vma, prev)
        self._areas.free(vma)
        self._areas.mm(mm).map_count -= 1
        return prev

    def _head(self, vma: int, prev: int, end: int, newflags: int, *, merge: bool) -> int:
        """The VMA before may grow over the part; ``vm_pgoff`` of the rest stays as it was."""
        if merge:
            self._areas.vma(prev).vm_end = self._areas.vma(vma).vm_start = end
            return vma
        return vma if self._splitter.head(vma, end, newflags, protection=True) else 0
