# SPDX-License-Identifier: GPL-2.0-or-later
"""Taking address ranges away, and the end of an address space.

Models linux-2.6.11 ``mm/mmap.c: do_munmap()``, ``unmap_region()``, ``unmap_vma()``,
``free_pgtables()``, ``exit_mmap()`` (book 4.8). VMAs are cut first, so that whole ones go. What
can fail: ``-ENOMEM`` when a VMA cannot be cut. The lower end may have been cut by then.
"""

from collections.abc import Sequence
from typing import Final

from kernel_model.arch_i386.page import TASK_SIZE
from kernel_model.errors import KernelBug
from kernel_model.mm.mmap.accounting import Accounting
from kernel_model.mm.mmap.areas import Areas
from kernel_model.mm.mmap.find import Finder
from kernel_model.mm.mmap.limits import Limits
from kernel_model.mm.mmap.linux_2_6.adjust import Adjuster
from kernel_model.mm.mmap.linux_2_6.link import RefusingLinks
from kernel_model.mm.mmap.linux_2_6.neighbours import pages_of
from kernel_model.mm.mmap.linux_2_6.pages import PageOperations
from kernel_model.mm.mmap.linux_2_6.unmapped_area import RememberedSearch
from kernel_model.mm.mmap.unmap import Unmapper
from kernel_model.structs.linux_2_6.mm import VM_ACCOUNT

_ALL: Final = 0xFFFFFFFF


class CuttingUnmapper(Unmapper):
    """VMAs are cut at the ends of the range, and whole ones go."""

    _links: RefusingLinks

    def __init__(
        self,
        areas: Areas,
        finder: Finder,
        limits: Limits,
        accounting: Accounting,
        links: RefusingLinks,
        adjuster: Adjuster,
        unmapped: RememberedSearch,
        pages: PageOperations,
    ) -> None:
        super().__init__(areas, finder, accounting, links)
        self._limits = limits
        self._adjuster = adjuster
        self._unmapped = unmapped
        self._pages = pages

    def _unmap(self, mm: int, vma: int, prev: int, addr: int, end: int) -> int:
        if addr > self._areas.vma(vma).vm_start:
            if error := self._adjuster.split_vma(mm, vma, addr, new_below=False):
                return error
            prev = vma
        last = self._finder.find_vma(mm, end)
        reaches_into = last and end > self._areas.vma(last).vm_start
        if reaches_into and (error := self._adjuster.split_vma(mm, last, end, new_below=True)):
            return error
        vmas = self._take_out(mm, prev, end)
        self._areas.mm(mm).map_count -= len(vmas)
        self._unmap_region(mm, vmas, prev, addr, end)
        for vma in vmas:
            self._unmap_vma(mm, vma)
        return 0

    def _unmap_region(self, mm: int, vmas: list[int], prev: int, start: int, end: int) -> None:
        """Pages first, then the page tables that no VMA needs any more."""
        tlb = self._pages.tlb_gather_mmu(mm, full_mm_flush=False)
        tlb.unmap_vmas(vmas, start, end)
        self._uncharge(vmas)
        first, last = self._page_tables(mm, prev, start, end)
        pmd_mask = -self._shape.pmd_size
        if first & pmd_mask < last & pmd_mask:
            tlb.clear_page_range(first, last)
            # For CPUs that keep their page tables at virtual addresses; an i386 does not.
            self._pages.flush_tlb_pgtables(mm, first, last)
        tlb.tlb_finish_mmu(start, end)

    def _uncharge(self, vmas: Sequence[int]) -> None:
        views = [self._areas.vma(vma) for vma in vmas]
        charged = sum(pages_of(area) for area in views if area.vm_flags & VM_ACCOUNT)
        self._limits.vm_unacct_memory(charged)

    def _page_tables(self, mm: int, prev: int, start: int, end: int) -> tuple[int, int]:
        """``free_pgtables()``: the range that no neighbour shares a page table with."""
        below, above = self._neighbours(mm, prev, start)
        size = self._shape.pgdir_size
        return max(start & -size, below), min(end + size - 1, TASK_SIZE, above)

    def _unmap_vma(self, mm: int, vma: int) -> None:
        area = self._areas.vma(vma)
        self._accounting.count(mm, area.vm_flags, area.vm_file, -pages_of(area))
        self._unmapped.unmapped(vma)
        self._remove_vm_struct(vma)

    def _remove_vm_struct(self, vma: int) -> None:
        """A VMA that is in no address space any more leaves its file and its list, and goes."""
        area = self._areas.vma(vma)
        self._links.mappings.remove(vma)
        self._areas.close(vma)
        if area.vm_file:
            self._areas.files.fput(area.vm_file)
        self._links.anon.unlink(vma)
        self._areas.free(vma)

    def exit_mmap(self, mm: int) -> None:
        """Unmap everything: first all pages, then all page tables, then the VMAs."""
        space, vmas = self._areas.mm(mm), self._areas.list(mm)
        tlb = self._pages.tlb_gather_mmu(mm, full_mm_flush=True)
        # Unmapping flushes each range as well; but a machine may do better with all at once.
        self._pages.flush_cache_mm(mm)
        tlb.unmap_vmas(vmas, 0, _ALL)
        space.map_count -= len(vmas)
        self._uncharge(vmas)
        if space.map_count:
            raise KernelBug("mmap.c", 0, f"map_count is {space.map_count} without any VMA")
        tlb.clear_page_range(0, TASK_SIZE)
        tlb.tlb_finish_mmu(0, TASK_SIZE)
        space.mmap = space.mmap_cache = space.mm_rb.rb_node = 0
        space.rss = space.total_vm = space.locked_vm = 0
        for vma in vmas:
            self._remove_vm_struct(vma)
