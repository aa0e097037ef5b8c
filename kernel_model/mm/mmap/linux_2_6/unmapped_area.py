# SPDX-License-Identifier: GPL-2.0-or-later
"""Room for a new mapping, as 2.6 searches it: upwards, or downwards from below the stack.

Models linux-2.6.11 ``mm/mmap.c: arch_get_unmapped_area()``, ``arch_get_unmapped_area_topdown()``,
``arch_unmap_area()``, ``arch_unmap_area_topdown()`` and ``arch/i386/mm/mmap.c:
arch_pick_mmap_layout()`` (book 4.8). In RAM: ``mm->get_unmapped_area`` and ``unmap_area``, which
point to two of these; ``mm->mmap_base``, where a search begins; ``mm->free_area_cache``, where the
last one ended, moved back by what is unmapped before it. Files of huge pages search in
the same way (``arch/i386/mm/hugetlbpage.c: hugetlb_get_unmapped_area()``, book 3.10), from one
whole huge page to the next.
"""

from typing import Final

from kernel_model.arch_i386.page import PAGE_MASK, TASK_SIZE, TASK_UNMAPPED_BASE
from kernel_model.errno import EINVAL, ENOMEM
from kernel_model.mm.hugetlb.geometry import HugePages
from kernel_model.mm.mmap.areas import Areas
from kernel_model.mm.mmap.find import Finder
from kernel_model.mm.mmap.unmapped_area import UnmappedAreas
from kernel_model.structs.mman import MAP_FIXED
from kernel_model.structs.sched import RLIM_INFINITY, RLIMIT_STACK

MIN_GAP: Final = 128 << 20
MAX_GAP: Final = TASK_SIZE // 6 * 5
"""Bytes between STACK_TOP and ``mmap_base``: the stack's limit, but not more or less than these."""

_ANYWHERE: Final = 1
"""What the kernel does not align: a length that is no whole pages leaves the next search there."""


class RememberedSearch(UnmappedAreas):
    """Both searches; an address space says which is its."""

    def __init__(self, areas: Areas, finder: Finder) -> None:
        super().__init__(areas, finder)
        self._huge = HugePages.of(pae=areas.image.config.pae)
        address = areas.image.functions.address
        self._upwards = (
            address(self.arch_get_unmapped_area),
            address(self.arch_unmap_area),
        )
        self._downwards = (
            address(self.arch_get_unmapped_area_topdown),
            address(self.arch_unmap_area_topdown),
        )

    def get_unmapped_area(self, file: int, addr: int, length: int, pgoff: int, flags: int) -> int:
        """At a fixed address, too, huge pages must be whole (``prepare_hugepage_range()``)."""
        found = super().get_unmapped_area(file, addr, length, pgoff, flags)
        fixed = flags & MAP_FIXED and not found & ~PAGE_MASK
        if fixed and self._areas.files.is_file_hugepages(file):
            return self._huge.is_aligned_hugepage_range(addr, length) or found
        return found

    def arch_pick_mmap_layout(self, mm: int) -> None:
        """Downwards, unless the stack may grow for ever or ``legacy_va_layout`` is set."""
        space = self._areas.mm(mm)
        stack = int(self._areas.image.current_task.rlim[RLIMIT_STACK].rlim_cur)
        if stack == RLIM_INFINITY or self._areas.statics.sysctl_legacy_va_layout:
            space.mmap_base = TASK_UNMAPPED_BASE
            space.get_unmapped_area, space.unmap_area = self._upwards
        else:
            gap = min(max(stack, MIN_GAP), MAX_GAP)
            space.mmap_base = TASK_SIZE - (gap & PAGE_MASK)
            space.get_unmapped_area, space.unmap_area = self._downwards

    def _anywhere(self, file: int, addr: int, length: int, pgoff: int, flags: int) -> int:
        search = self._areas.mm(self._areas.current_mm).get_unmapped_area
        return self._areas.image.functions.call(search, file, addr, length, pgoff, flags)

    def unmapped(self, vma: int) -> None:
        """``mm->unmap_area(vma)``: a VMA goes, and leaves a hole."""
        self._areas.image.functions.call(self._areas.mm(self._areas.vma(vma).vm_mm).unmap_area, vma)

    # -- upwards -------------------------------------------------------------------------------

    def arch_get_unmapped_area(
        self, file: int, addr: int, length: int, pgoff: int, flags: int
    ) -> int:
        """The first hole behind where the last search ended; then from the bottom on."""
        if length > TASK_SIZE:
            return -ENOMEM
        mm = self._areas.current_mm
        wished = self._wished(mm, addr, length)
        if wished is not None:
            return wished
        return self._search_upwards(mm, length, _ANYWHERE)

    def _search_upwards(self, mm: int, length: int, unit: int) -> int:
        """At a whole ``unit``."""
        start = self._areas.mm(mm).free_area_cache
        found = self._first_hole(mm, start, length, unit)
        if found < 0 and start != TASK_UNMAPPED_BASE:
            found = self._first_hole(mm, TASK_UNMAPPED_BASE, length, unit)
        if found >= 0:
            self._areas.mm(mm).free_area_cache = found + length
        return found

    def _first_hole(self, mm: int, addr: int, length: int, unit: int) -> int:
        addr = -(-addr // unit) * unit
        vma = self._finder.find_vma(mm, addr)
        while addr <= TASK_SIZE - length:
            if not vma or addr + length <= self._areas.vma(vma).vm_start:
                return addr
            addr = -(-self._areas.vma(vma).vm_end // unit) * unit
            vma = self._areas.vma(vma).vm_next
        return -ENOMEM

    def arch_unmap_area(self, vma: int) -> None:
        """A hole before where the last search ended is where the next one begins."""
        area = self._areas.vma(vma)
        space = self._areas.mm(area.vm_mm)
        if TASK_UNMAPPED_BASE <= area.vm_start < space.free_area_cache:
            space.free_area_cache = area.vm_start

    # -- downwards -----------------------------------------------------------------------------

    def arch_get_unmapped_area_topdown(
        self, file: int, addr: int, length: int, pgoff: int, flags: int
    ) -> int:
        """The highest hole below the end of the last search; then below ``mmap_base``; then any."""
        if length > TASK_SIZE:
            return -ENOMEM
        mm = self._areas.current_mm
        space = self._areas.mm(mm)
        space.free_area_cache = min(space.free_area_cache, space.mmap_base)
        wished = self._wished(mm, addr, length)
        if wished is not None:
            return wished
        return self._search_downwards(mm, length, _ANYWHERE)

    def _search_downwards(self, mm: int, length: int, unit: int) -> int:
        space = self._areas.mm(mm)
        base = space.mmap_base
        for _ in range(2):
            found = self._highest_hole(mm, length, unit)
            if found is not None:
                return found
            space.free_area_cache = base
        space.free_area_cache = TASK_UNMAPPED_BASE
        found = self._search_upwards(mm, length, unit)
        space.free_area_cache = base
        return found

    def _highest_hole(self, mm: int, length: int, unit: int) -> int | None:
        """Below ``free_area_cache``, which follows the VMAs that reach up to it."""
        space = self._areas.mm(mm)
        if space.free_area_cache < length:
            return None
        addr = space.free_area_cache - length & PAGE_MASK & -unit
        while True:
            vma, prev = self._finder.find_vma_prev(mm, addr)
            if not vma:
                return addr
            area = self._areas.vma(vma)
            above_prev = not prev or addr >= self._areas.vma(prev).vm_end
            if addr + length <= area.vm_start and above_prev:
                space.free_area_cache = addr
                return addr
            if space.free_area_cache == area.vm_end:
                space.free_area_cache = area.vm_start
            if length > area.vm_start:
                return None
            addr = area.vm_start - length & -unit

    def arch_unmap_area_topdown(self, vma: int) -> None:
        """A hole above where the last search ended is where the next one begins."""
        area = self._areas.vma(vma)
        space = self._areas.mm(area.vm_mm)
        space.free_area_cache = max(space.free_area_cache, area.vm_end)

    # -- huge pages ----------------------------------------------------------------------------

    def hugetlb_get_unmapped_area(
        self, file: int, addr: int, length: int, pgoff: int, flags: int
    ) -> int:
        """The same for whole huge pages, in the direction that the address space has."""
        if length % self._huge.size:
            return -EINVAL
        if length > TASK_SIZE:
            return -ENOMEM
        mm = self._areas.current_mm
        wished = self._wished(mm, self._huge.align(addr), length)
        if wished is not None:
            return wished
        space = self._areas.mm(mm)
        if space.get_unmapped_area == self._upwards[0]:
            return self._search_upwards(mm, length, self._huge.size)
        space.free_area_cache = min(space.free_area_cache, space.mmap_base)
        return self._search_downwards(mm, length, self._huge.size)
