# SPDX-License-Identifier: GPL-2.0-or-later
"""Room for a new mapping, as 2.4 searches it.

Models linux-2.4.22 ``mm/mmap.c: arch_get_unmapped_area()`` (book 4.4.3).
"""

from kernel_model.arch_i386.page import TASK_SIZE, TASK_UNMAPPED_BASE, page_align
from kernel_model.errno import ENOMEM
from kernel_model.mm.mmap.unmapped_area import UnmappedAreas


class FirstFit(UnmappedAreas):
    """The first hole above a third of user space, searched from there each time."""

    def _anywhere(self, file: int, addr: int, length: int, pgoff: int, flags: int) -> int:
        if length > TASK_SIZE:
            return -ENOMEM
        mm = self._areas.current_mm
        wished = self._wished(mm, addr, length)
        return self._search(mm, length) if wished is None else wished

    def _search(self, mm: int, length: int) -> int:
        addr = page_align(TASK_UNMAPPED_BASE)
        vma = self._finder.find_vma(mm, addr)
        while vma and addr <= TASK_SIZE - length and addr + length > self._areas.vma(vma).vm_start:
            addr, vma = self._areas.vma(vma).vm_end, self._areas.vma(vma).vm_next
        return addr if addr <= TASK_SIZE - length else -ENOMEM
