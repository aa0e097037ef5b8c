# SPDX-License-Identifier: GPL-2.0-or-later
"""Where a new mapping goes.

Models ``mm/mmap.c: get_unmapped_area()`` of linux-2.4.22 and 2.6.11 (book 4.4.3, 4.8); how room is
searched is each release's own. What can fail: ``-ENOMEM`` when no hole is large enough,
``-EINVAL`` for a fixed address that is no page's.
"""

from abc import ABC, abstractmethod
from typing import Final

from kernel_model.arch_i386.page import PAGE_MASK, TASK_SIZE, page_align
from kernel_model.errno import EINVAL, ENOMEM
from kernel_model.mm.mmap.areas import Areas
from kernel_model.mm.mmap.find import Finder
from kernel_model.structs.mman import MAP_FIXED

_U32: Final = 0xFFFFFFFF


class UnmappedAreas(ABC):
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
        return self._anywhere(file, addr, length, pgoff, flags)

    def _wished(self, mm: int, addr: int, length: int) -> int | None:
        """The address that was wished for, if there is room; None: there is none, or no wish."""
        if not addr:
            return None
        addr = page_align(addr)
        vma = self._finder.find_vma(mm, addr)
        room = not vma or addr + length <= self._areas.vma(vma).vm_start
        return addr if room and addr <= TASK_SIZE - length else None

    @abstractmethod
    def _anywhere(self, file: int, addr: int, length: int, pgoff: int, flags: int) -> int:
        """An address where there is room, ``addr`` if it can be; below 0 is an error."""
