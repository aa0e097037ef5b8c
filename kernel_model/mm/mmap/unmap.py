# SPDX-License-Identifier: GPL-2.0-or-later
"""Taking address ranges away.

Models what ``mm/mmap.c: do_munmap()``, ``free_pgtables()`` of linux-2.4.22 and 2.6.11 have in
common (book 4.4); how the VMAs of a range go is each release's own. What can fail: ``-EINVAL`` for
a range outside user space.
"""

from abc import ABC, abstractmethod
from typing import Final

from kernel_model.arch_i386.page import PAGE_MASK, TASK_SIZE, page_align
from kernel_model.arch_i386.pgtable import THREE_LEVEL, TWO_LEVEL
from kernel_model.errno import EINVAL
from kernel_model.mm.mmap.accounting import Accounting
from kernel_model.mm.mmap.areas import Areas
from kernel_model.mm.mmap.find import Finder
from kernel_model.mm.mmap.link import Links

_NOTHING_ABOVE: Final = 1 << 32


class Unmapper(ABC):
    """``munmap()`` on any address space."""

    def __init__(self, areas: Areas, finder: Finder, accounting: Accounting, links: Links) -> None:
        self._areas = areas
        self._finder = finder
        self._accounting = accounting
        self._links = links
        self._shape = THREE_LEVEL if areas.image.structs.abi.pae else TWO_LEVEL

    def do_munmap(self, mm: int, addr: int, length: int) -> int:
        """Unmap whatever lies in the range; a range with nothing in it is no error."""
        if addr & ~PAGE_MASK or addr > TASK_SIZE or length > TASK_SIZE - addr:
            return -EINVAL
        length = page_align(length)
        if not length:
            return -EINVAL
        vma, prev = self._finder.find_vma_prev(mm, addr)
        if not vma or self._areas.vma(vma).vm_start >= addr + length:
            return 0
        return self._unmap(mm, vma, prev, addr, addr + length)

    @abstractmethod
    def _unmap(self, mm: int, vma: int, prev: int, addr: int, end: int) -> int:
        """The same for a range in which ``vma`` is the first, ``prev`` the one before it."""

    def _take_out(self, mm: int, prev: int, end: int) -> list[int]:
        """Out of list and tree: every VMA behind ``prev`` that begins below ``end``, lowest
        first."""
        space, taken = self._areas.mm(mm), []
        vma = self._areas.vma(prev).vm_next if prev else space.mmap
        while vma and self._areas.vma(vma).vm_start < end:
            taken.append(vma)
            self._links.rb_erase(mm, vma)
            vma = self._areas.vma(vma).vm_next
        if prev:
            self._areas.vma(prev).vm_next = vma
        else:
            space.mmap = vma
        space.mmap_cache = 0
        return taken

    def _neighbours(self, mm: int, prev: int, start: int) -> tuple[int, int]:
        """Where the VMA before ``start`` ends, and where the one behind it begins: page tables
        that they need must stay.

        ``prev`` lies before ``start``, nobody says how far; 0: no VMA does. Without a neighbour
        the ends of the address space.
        """
        areas = self._areas
        if not prev:
            prev = areas.mm(mm).mmap
            if not prev:
                return 0, _NOTHING_ABOVE
            if areas.vma(prev).vm_end > start:
                return 0, areas.vma(prev).vm_start
        following = areas.vma(prev).vm_next
        while following and areas.vma(following).vm_start < start:
            prev, following = following, areas.vma(following).vm_next
        above = areas.vma(following).vm_start if following else _NOTHING_ABOVE
        return areas.vma(prev).vm_end, above
