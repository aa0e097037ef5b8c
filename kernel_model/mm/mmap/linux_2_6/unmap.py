# SPDX-License-Identifier: GPL-2.0-or-later
"""Taking address ranges away, and the end of an address space.

Models linux-2.6.11 ``mm/mmap.c: do_munmap()``, ``unmap_region()``, ``unmap_vma()``,
``free_pgtables()``, ``exit_mmap()`` (book 4.8). VMAs are cut first, so that whole ones go. What
can fail: ``-EINVAL`` for a range outside user space; ``-ENOMEM`` when a VMA cannot be cut. The
lower end may have been cut by then.
"""

from collections.abc import Sequence
from typing import Final

from kernel_model.arch_i386.page import PAGE_MASK, TASK_SIZE, page_align
from kernel_model.arch_i386.pgtable import THREE_LEVEL, TWO_LEVEL
from kernel_model.errno import EINVAL
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
from kernel_model.mm.mmap.neighbourhood import between
from kernel_model.structs.linux_2_6.mm import VM_ACCOUNT

_ALL: Final = 0xFFFFFFFF


class CuttingUnmapper:
    """``munmap()`` on any address space."""

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
        self._areas = areas
        self._finder = finder
        self._limits = limits
        self._accounting = accounting
        self._links = links
        self._adjuster = adjuster
        self._unmapped = unmapped
        self._pages = pages
        shape = THREE_LEVEL if areas.image.structs.abi.pae else TWO_LEVEL
        self._pgdir_size, self._pmd_size = shape.pgdir_size, shape.pmd_size

    def do_munmap(self, mm: int, addr: int, length: int) -> int:
        """Unmap whatever lies in the range; a range with nothing in it is no error."""
        if addr & ~PAGE_MASK or addr > TASK_SIZE or length > TASK_SIZE - addr:
            return -EINVAL
        length = page_align(length)
        if not length:
            return -EINVAL
        end = addr + length
        vma, prev = self._finder.find_vma_prev(mm, addr)
        if not vma or self._areas.vma(vma).vm_start >= end:
            return 0
        if addr > self._areas.vma(vma).vm_start:
            if error := self._adjuster.split_vma(mm, vma, addr, new_below=False):
                return error
            prev = vma
        last = self._finder.find_vma(mm, end)
        reaches_into = last and end > self._areas.vma(last).vm_start
        if reaches_into and (error := self._adjuster.split_vma(mm, last, end, new_below=True)):
            return error
        vmas = self._detach(mm, prev, end)
        self._unmap_region(mm, vmas, prev, addr, end)
        for vma in vmas:
            self._unmap_vma(mm, vma)
        return 0

    def _detach(self, mm: int, prev: int, end: int) -> list[int]:
        """``detach_vmas_to_be_unmapped()``: out of list and tree, lowest first."""
        space, vmas = self._areas.mm(mm), []
        vma = self._areas.vma(prev).vm_next if prev else space.mmap
        while vma and self._areas.vma(vma).vm_start < end:
            vmas.append(vma)
            self._links.rb_erase(mm, vma)
            space.map_count -= 1
            vma = self._areas.vma(vma).vm_next
        if prev:
            self._areas.vma(prev).vm_next = vma
        else:
            space.mmap = vma
        space.mmap_cache = 0
        return vmas

    def _unmap_region(self, mm: int, vmas: list[int], prev: int, start: int, end: int) -> None:
        """Pages first, then the page tables that no VMA needs any more."""
        tlb = self._pages.tlb_gather_mmu(mm, full_mm_flush=False)
        tlb.unmap_vmas(vmas, start, end)
        self._uncharge(vmas)
        first, last = self._page_tables(mm, prev, start, end)
        if first & -self._pmd_size < last & -self._pmd_size:
            tlb.clear_page_range(first, last)
        tlb.tlb_finish_mmu(start, end)

    def _uncharge(self, vmas: Sequence[int]) -> None:
        views = [self._areas.vma(vma) for vma in vmas]
        charged = sum(pages_of(area) for area in views if area.vm_flags & VM_ACCOUNT)
        self._limits.vm_unacct_memory(charged)

    def _page_tables(self, mm: int, prev: int, start: int, end: int) -> tuple[int, int]:
        """``free_pgtables()``: the range that no neighbour shares a page table with."""
        below, above = between(self._areas, mm, prev, start)
        first = max(start & -self._pgdir_size, below)
        return first, min(end + self._pgdir_size - 1, TASK_SIZE, above)

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
