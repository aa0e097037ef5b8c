# SPDX-License-Identifier: GPL-2.0-or-later
"""Making one VMA of two that touch, as 2.4 does it.

Models linux-2.4.22 ``mm/mmap.c: vma_merge()`` and ``include/linux/mm.h: can_vma_merge()`` (book
4.4.5). Only zeros merge; where their ``vm_pgoff`` says they lie does not matter. Nothing here can
fail.
"""

from kernel_model.mm.mmap.areas import Areas, VmArea
from kernel_model.mm.mmap.find import VM_RB, Place
from kernel_model.mm.mmap.link import Links
from kernel_model.mm.mmap.parts import Content


def can_vma_merge(area: VmArea, vm_flags: int) -> bool:
    """Only anonymous VMAs merge, and only with the very same flags; ``vm_pgoff`` may differ."""
    return not area.vm_file and area.vm_flags == vm_flags


class AnonymousMerging:
    """Lets anonymous VMAs grow over what touches them."""

    def __init__(self, areas: Areas, links: Links) -> None:
        self._areas = areas
        self._links = links

    def anonymous_pgoff(self, addr: int, pgoff: int) -> int:
        """What was asked for: nothing uses it."""
        return pgoff

    def absorb_next(self, mm: int, prev: int) -> bool:
        """Let ``prev`` take over the VMA behind it if the two touch and may be one."""
        area = self._areas.vma(prev)
        following = area.vm_next
        if not following:
            return False
        next_area = self._areas.vma(following)
        if area.vm_end != next_area.vm_start or not can_vma_merge(next_area, area.vm_flags):
            return False
        area.vm_end = next_area.vm_end
        self._links.vma_unlink(mm, following, prev)
        self._areas.mm(mm).map_count -= 1
        self._areas.free(following)
        return True

    def vma_merge(self, mm: int, place: Place, start: int, end: int, content: Content) -> int:
        """Grow a neighbour over ``start`` to ``end`` rather than making a new VMA.

        Nothing before the range: then the VMA behind it is where the tree ended, as for
        ``__vma_link()``. Returns the neighbour; 0: there is none that may.
        """
        if content.file or not place.rb_parent:
            return 0
        if place.prev:
            prev = self._areas.vma(place.prev)
            if prev.vm_end == start and can_vma_merge(prev, content.vm_flags):
                prev.vm_end = end
                self.absorb_next(mm, place.prev)
                return place.prev
            following = prev.vm_next
        else:
            following = place.rb_parent - VM_RB
        if not following:
            return 0
        area = self._areas.vma(following)
        if area.vm_start != end or not can_vma_merge(area, content.vm_flags):
            return 0
        area.vm_start = start
        return following
