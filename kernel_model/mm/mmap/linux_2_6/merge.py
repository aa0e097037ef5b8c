# SPDX-License-Identifier: GPL-2.0-or-later
"""Making one VMA of those that touch, as 2.6 does it.

Models linux-2.6.11 ``mm/mmap.c: vma_merge()`` (book 4.8). Files merge too. The range may be a hole,
or the part of a VMA that is about to get other flags: then the edge between neighbours moves, or
one of them goes. Nothing here can fail.
"""

from kernel_model.arch_i386.page import PAGE_SHIFT
from kernel_model.mm.mmap.areas import Areas
from kernel_model.mm.mmap.find import Place
from kernel_model.mm.mmap.linux_2_6.adjust import Adjuster
from kernel_model.mm.mmap.linux_2_6.neighbours import VM_SPECIAL, Neighbours, same_anon_vma
from kernel_model.mm.mmap.parts import Content


class OffsetMerging:
    """Lets VMAs grow over what goes on where they end."""

    def __init__(self, areas: Areas, neighbours: Neighbours, adjuster: Adjuster) -> None:
        self._areas = areas
        self._neighbours = neighbours
        self._adjuster = adjuster

    def anonymous_pgoff(self, addr: int, pgoff: int) -> int:
        """Zeros lie at the page of their address, so that they merge as file pages do."""
        return addr >> PAGE_SHIFT

    def vma_merge(self, mm: int, place: Place, start: int, end: int, content: Content) -> int:
        """Grow a neighbour over a hole. Returns that VMA; 0: none may."""
        return self.merge_behind(mm, place.prev, start, end, content)

    def merge_behind(self, mm: int, prev: int, start: int, end: int, content: Content) -> int:
        """The same for any range behind ``prev`` or in it.

        Returns the VMA that has the range now and whose flags may have to change; 0: none.
        """
        if content.vm_flags & VM_SPECIAL:
            return 0
        area = self._areas.vma(prev).vm_next if prev else self._areas.mm(mm).mmap
        following = area
        if following and self._areas.vma(following).vm_end == end:
            # The range is the end of a VMA, or all of it: what follows is behind that.
            following = self._areas.vma(following).vm_next
        behind = content._replace(pgoff=content.pgoff + (end - start >> PAGE_SHIFT))
        joins_next = (
            following
            and self._areas.vma(following).vm_start == end
            and self._neighbours.can_merge_before(following, behind)
        )
        touches = prev and self._areas.vma(prev).vm_end == start
        if touches and self._neighbours.can_merge_after(prev, content):
            return self._extend(prev, following if joins_next else 0, end)
        if not joins_next:
            return 0
        if prev and start < self._areas.vma(prev).vm_end:
            before = self._areas.vma(prev)
            self._adjuster.vma_adjust(prev, before.vm_start, start, before.vm_pgoff)
        else:
            last, pgoff = self._areas.vma(following), self._areas.vma(following).vm_pgoff
            pgoff -= end - start >> PAGE_SHIFT
            self._adjuster.vma_adjust(area, start, last.vm_end, pgoff)
        return area

    def _extend(self, prev: int, following: int, end: int) -> int:
        """Let ``prev`` grow over the range, and over the VMA behind it if that may be."""
        before = self._areas.vma(prev)
        if following:
            behind = self._areas.vma(following)
            if same_anon_vma(before.anon_vma, behind.anon_vma):
                end = behind.vm_end
        self._adjuster.vma_adjust(prev, before.vm_start, end, before.vm_pgoff)
        return prev
