# SPDX-License-Identifier: GPL-2.0-or-later
"""The end of an address space.

Models linux-2.4.22 ``mm/mmap.c: exit_mmap()`` (book 4.3.3): every VMA goes, lowest first, then
every page table of user space.
"""

from kernel_model.arch_i386.pgtable import THREE_LEVEL, TWO_LEVEL
from kernel_model.errors import KernelBug
from kernel_model.mm.mmap.areas import Areas
from kernel_model.mm.mmap.linux_2_4.pages import PageOperations
from kernel_model.mm.mmap.mappings import FileMappings


class Exit:
    """Empties address spaces."""

    def __init__(self, areas: Areas, mappings: FileMappings, pages: PageOperations) -> None:
        self._areas = areas
        self._mappings = mappings
        self._pages = pages
        shape = THREE_LEVEL if areas.image.structs.abi.pae else TWO_LEVEL
        self._user_entries = shape.user_ptrs_per_pgd

    def exit_mmap(self, mm: int) -> None:
        """Unmap everything. The counters go first, so nobody sees them go down."""
        space = self._areas.mm(mm)
        vmas = self._areas.list(mm)
        space.mmap = space.mmap_cache = space.mm_rb.rb_node = 0
        space.rss = space.total_vm = space.locked_vm = 0
        # Each VMA's range is flushed again when its pages go.
        self._pages.flush_cache_mm(mm)
        for vma in vmas:
            area = self._areas.vma(vma)
            self._areas.close(vma)
            space.map_count -= 1
            self._mappings.remove(vma)
            self._pages.zap_page_range(mm, area.vm_start, area.vm_end - area.vm_start)
            if area.vm_file:
                self._areas.files.fput(area.vm_file)
            self._areas.free(vma)
        if space.map_count:
            raise KernelBug("mmap.c", 1163, f"map_count is {space.map_count} without any VMA")
        self._pages.clear_page_tables(mm, 0, self._user_entries)
        # Each VMA was flushed as it went, and an i386 caches no entry above the PTE; a CPU that
        # does may still have some of the page tables that have just been freed.
        self._pages.flush_tlb_mm(mm)
