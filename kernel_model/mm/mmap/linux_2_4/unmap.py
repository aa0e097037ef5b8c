# SPDX-License-Identifier: GPL-2.0-or-later
"""Taking address ranges away: whole VMAs, their ends, holes in their middle.

Models linux-2.4.22 ``mm/mmap.c: do_munmap()``, ``unmap_fixup()``, ``free_pgtables()`` (book
4.4). What can fail: ``-ENOMEM`` before anything has changed, when there is no memory for the
VMA that a hole needs or there are too many.
"""

from typing import Final

from kernel_model.arch_i386.page import PAGE_SHIFT
from kernel_model.errno import ENOMEM
from kernel_model.mm.mmap.accounting import Accounting
from kernel_model.mm.mmap.areas import Areas
from kernel_model.mm.mmap.find import Finder
from kernel_model.mm.mmap.linux_2_4.link import BuggingLinks
from kernel_model.mm.mmap.linux_2_4.pages import PageOperations
from kernel_model.mm.mmap.unmap import Unmapper
from kernel_model.structs.mm import VM_DENYWRITE

_U32: Final = 0xFFFFFFFF


class RefittingUnmapper(Unmapper):
    """What stays of a VMA is put back."""

    _links: BuggingLinks

    def __init__(
        self,
        areas: Areas,
        finder: Finder,
        accounting: Accounting,
        links: BuggingLinks,
        pages: PageOperations,
    ) -> None:
        super().__init__(areas, finder, accounting, links)
        self._pages = pages

    def _unmap(self, mm: int, vma: int, prev: int, addr: int, end: int) -> int:
        if self._makes_too_many(mm, vma, addr, end):
            return -ENOMEM
        # Only a hole needs it, but after this nothing can fail.
        extra = self._areas.alloc()
        if not extra:
            return -ENOMEM
        # The kernel strings them together last first.
        for taken in reversed(self._take_out(mm, prev, end)):
            extra = self._unmap_area(mm, taken, addr, end, extra)
        if extra:
            self._areas.free(extra)
        self._free_pgtables(mm, prev, addr, end)
        return 0

    def _makes_too_many(self, mm: int, vma: int, addr: int, end: int) -> bool:
        """Whether the range is a hole in the VMA while there are as many as there may be."""
        area = self._areas.vma(vma)
        hole = area.vm_start < addr and area.vm_end > end
        return hole and self._areas.mm(mm).map_count >= self._areas.statics.max_map_count

    def _unmap_area(self, mm: int, vma: int, addr: int, end: int, extra: int) -> int:
        """Unmap what one VMA, taken out, has in the range. Returns what is left of ``extra``.

        A part that stays denies writing all the while.
        """
        area, files = self._areas.vma(vma), self._areas.files
        start, end = max(addr, area.vm_start), min(end, area.vm_end)
        stays = start != area.vm_start or end != area.vm_end
        file = area.vm_file if area.vm_flags & VM_DENYWRITE and stays else 0
        if file:
            files.inode(files.inode_of(file)).i_writecount -= 1
        self._links.mappings.remove(vma)
        self._areas.mm(mm).map_count -= 1
        self._pages.zap_page_range(mm, start, end - start)
        extra = self._unmap_fixup(mm, vma, start, end, extra)
        if file:
            files.inode(files.inode_of(file)).i_writecount += 1
        return extra

    def _unmap_fixup(self, mm: int, vma: int, start: int, end: int, extra: int) -> int:
        """Put back what stays of a VMA: nothing, one end, or both with ``extra`` for the upper."""
        area = self._areas.vma(vma)
        self._accounting.count(mm, area.vm_flags, area.vm_file, -(end - start >> PAGE_SHIFT))
        if (start, end) == (area.vm_start, area.vm_end):
            self._areas.close(vma)
            if area.vm_file:
                self._areas.files.fput(area.vm_file)
            self._areas.free(vma)
            return extra
        if end == area.vm_end:
            area.vm_end = start
        elif start == area.vm_start:
            area.vm_pgoff += end - area.vm_start >> PAGE_SHIFT
            area.vm_start = end
        else:
            self._upper_part(vma, end, extra)
            area.vm_end = start
            self._links.insert_vm_struct_locked(mm, extra)
            extra = 0
        self._links.insert_vm_struct_locked(mm, vma)
        return extra

    def _upper_part(self, vma: int, end: int, extra: int) -> None:
        """Make ``extra`` the part of a VMA from ``end`` on."""
        area, upper = self._areas.vma(vma), self._areas.vma(extra)
        self._areas.copy(extra, vma)
        upper.vm_start = end
        upper.vm_pgoff += end - area.vm_start >> PAGE_SHIFT
        upper.vm_raend = 0
        self._areas.share_file(extra)

    def _free_pgtables(self, mm: int, prev: int, start: int, end: int) -> None:
        """Free the page tables that no VMA needs any more, between the neighbours of a range."""
        size = self._shape.pgdir_size
        below, above = self._neighbours(mm, prev, start)
        first = start & -size
        if below > first:
            first = below + size - 1
        last = min(end + size - 1, above)
        # 4 GiB and more wrap to the first entry, and then there is nothing to do.
        first_index, last_index = (self._shape.pgd_index(edge & _U32) for edge in (first, last))
        if last_index > first_index:
            self._pages.clear_page_tables(mm, first_index, last_index - first_index)
            # Nothing to do on an i386: it caches no entry above the PTE.
            self._pages.flush_tlb_pgtables(mm, first & -size, last & -size)
