# SPDX-License-Identifier: GPL-2.0-or-later
"""Finding the VMA before an address, as 2.6 does it.

Models linux-2.6.11 ``mm/mmap.c: find_vma_prev()`` (book 4.8).
"""

from kernel_model.arch_i386.page import PAGE_OFFSET
from kernel_model.mm.mmap.find import Finder


class LastKnownFinder(Finder):
    """A :class:`Finder` that knows the last VMA, too."""

    def find_vma_prev(self, mm: int, addr: int) -> tuple[int, int]:
        """What ``find_vma()`` finds, and the VMA before it, behind the last VMA that one."""
        vma, prev = super().find_vma_prev(mm, addr)
        if vma:
            return vma, prev
        return 0, self._rightmost(self._words[(mm - PAGE_OFFSET >> 2) + self._root])
