# SPDX-License-Identifier: GPL-2.0-or-later
"""Where a new mapping goes.

Models linux-2.4.22 ``mm/mmap.c: get_unmapped_area()``, ``arch_get_unmapped_area()`` (book
4.4). What can fail: ``-ENOMEM`` when no hole is large enough, ``-EINVAL`` for a fixed address
that is no page's.
"""

from typing import Final

from kernel_model.arch_i386.page import PAGE_MASK, TASK_SIZE, TASK_UNMAPPED_BASE, page_align
from kernel_model.errno import EINVAL, ENOMEM
from kernel_model.mm.mmap.areas import Areas
from kernel_model.mm.mmap.find import Finder
from kernel_model.structs.mman import MAP_FIXED

_U32: Final = 0xFFFFFFFF


class UnmappedAreas:
    """Looks for room in the current address space."""

    def __init__(self, areas: Areas, finder: Finder) -> None:
        self._areas = areas
        self._finder = finder

    def get_unmapped_area(self, file: int, addr: int, length: int, pgoff: int, flags: int) -> int:
        """An address for ``length`` bytes, which are whole pages; below 0 is an error."""
        if flags & MAP_FIXED:
            if addr > (TASK_SIZE - length & _U32):
                return -ENOMEM
            return -EINVAL if addr & ~PAGE_MASK else addr
        if file and (own := self._areas.files.operation(file, "get_unmapped_area")):
            return self._areas.image.functions.call(own, file, addr, length, pgoff, flags)
        return self._first_fit(addr, length)

    def _first_fit(self, addr: int, length: int) -> int:
        """At the address that was wished for, or the first hole above a third of user space."""
        if length > TASK_SIZE:
            return -ENOMEM
        mm = self._areas.current_mm
        if addr:
            addr = page_align(addr)
            vma = self._finder.find_vma(mm, addr)
            room = not vma or addr + length <= self._areas.vma(vma).vm_start
            if room and addr <= TASK_SIZE - length:
                return addr
        addr = page_align(TASK_UNMAPPED_BASE)
        vma = self._finder.find_vma(mm, addr)
        while vma and addr <= TASK_SIZE - length and addr + length > self._areas.vma(vma).vm_start:
            addr, vma = self._areas.vma(vma).vm_end, self._areas.vma(vma).vm_next
        return addr if addr <= TASK_SIZE - length else -ENOMEM
