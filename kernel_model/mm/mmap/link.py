# SPDX-License-Identifier: GPL-2.0-or-later
"""Where VMAs hang: the list and the tree of their address space, the lists of their file.

Models linux-2.4.22 ``mm/mmap.c: vma_link()``, ``__vma_link()``, ``insert_vm_struct()``,
``vma_merge()``, ``__remove_shared_vm_struct()`` and ``include/linux/mm.h: __vma_unlink()``,
``can_vma_merge()`` (book 4.4). In RAM: ``mm->mmap``, ``mm->mm_rb``,
``mapping->i_mmap`` and ``i_mmap_shared``.

What can fail: a VMA put where another one is ends in the kernel's own ``BUG()``.
"""

from typing import Final

from kernel_model.arch_i386.page import PAGE_OFFSET
from kernel_model.errors import KernelBug
from kernel_model.mm.mmap.areas import Areas, VmArea
from kernel_model.mm.mmap.find import VM_RB, Finder, Place
from kernel_model.mm.rbtree import RbTree
from kernel_model.structs.mm import VM_AREA_STRUCT, VM_DENYWRITE, VM_SHARED

_FILE: Final = "mmap.c"
_NEXT_SHARE: Final = VM_AREA_STRUCT.offset("vm_next_share")


def can_vma_merge(area: VmArea, vm_flags: int) -> bool:
    """Only anonymous VMAs merge, and only with the very same flags; ``vm_pgoff`` may differ."""
    return not area.vm_file and area.vm_flags == vm_flags


class Links:
    """Puts VMAs into their lists and trees, and takes them out."""

    def __init__(self, areas: Areas, finder: Finder) -> None:
        self._areas = areas
        self._finder = finder
        self.tree = RbTree(areas.image.ram)
        self._mm_rb = areas.image.structs.mm_struct.offset("mm_rb")
        mapping = areas.image.structs.address_space
        self._i_mmap = mapping.offset("i_mmap")
        self._i_mmap_shared = mapping.offset("i_mmap_shared")

    # -- the address space's list and tree -----------------------------------------------------

    def _link(self, mm: int, vma: int, place: Place) -> None:
        """``__vma_link()``."""
        area = self._areas.vma(vma)
        if place.prev:
            prev = self._areas.vma(place.prev)
            area.vm_next, prev.vm_next = prev.vm_next, vma
        else:
            # The first VMA: with any other there, the tree ends at the one that follows.
            self._areas.mm(mm).mmap = vma
            area.vm_next = place.rb_parent - VM_RB if place.rb_parent else 0
        self.link_rb(mm, vma, place)
        self._link_file(vma)

    def link_rb(self, mm: int, vma: int, place: Place) -> None:
        """``__vma_link_rb()``."""
        self.tree.link_node(vma + VM_RB, place.rb_parent, place.rb_link)
        self.tree.insert_color(vma + VM_RB, mm + self._mm_rb)

    def vma_link(self, mm: int, vma: int, place: Place) -> None:
        """Link a VMA at the place that ``find_vma_prepare()`` found for it."""
        self._link(mm, vma, place)
        self._areas.mm(mm).map_count += 1

    def _insert(self, mm: int, vma: int, line: int) -> None:
        area = self._areas.vma(vma)
        place = self._finder.find_vma_prepare(mm, area.vm_start)
        if place.vma and self._areas.vma(place.vma).vm_start < area.vm_end:
            start, end = area.vm_start, area.vm_end
            raise KernelBug(_FILE, line, f"a VMA covers part of {start:#x}..{end:#x} already")
        self.vma_link(mm, vma, place)

    def insert_vm_struct(self, mm: int, vma: int) -> None:
        """Find the place of a VMA and link it."""
        self._insert(mm, vma, 1194)

    def insert_vm_struct_locked(self, mm: int, vma: int) -> None:
        """``__insert_vm_struct()``: the same for a caller that holds the locks."""
        self._insert(mm, vma, 1181)

    def rb_erase(self, mm: int, vma: int) -> None:
        """Out of the tree only."""
        self.tree.erase(vma + VM_RB, mm + self._mm_rb)

    def vma_unlink(self, mm: int, vma: int, prev: int) -> None:
        """``__vma_unlink()``: out of list and tree; ``prev`` inherits the cache."""
        self._areas.vma(prev).vm_next = self._areas.vma(vma).vm_next
        self.rb_erase(mm, vma)
        space = self._areas.mm(mm)
        if space.mmap_cache == vma:
            space.mmap_cache = prev

    # -- the file's lists ----------------------------------------------------------------------

    def _link_file(self, vma: int) -> None:
        """``__vma_link_file()``: newest first; a VMA that denies writing counts against it."""
        area = self._areas.vma(vma)
        if not area.vm_file:
            return
        inode = self._areas.files.inode(self._areas.files.inode_of(area.vm_file))
        if area.vm_flags & VM_DENYWRITE:
            inode.i_writecount -= 1
        shared = area.vm_flags & VM_SHARED
        head = int(inode.i_mapping) + (self._i_mmap_shared if shared else self._i_mmap)
        self.link_share(vma, head)

    def link_share(self, vma: int, link: int) -> None:
        """Into the list of a mapping, where the pointer at ``link`` points."""
        words, area = self._areas.words, self._areas.vma(vma)
        following = words[link - PAGE_OFFSET >> 2]
        area.vm_next_share, area.vm_pprev_share = following, link
        if following:
            self._areas.vma(following).vm_pprev_share = vma + _NEXT_SHARE
        words[link - PAGE_OFFSET >> 2] = vma

    def next_share_link(self, vma: int) -> int:
        """The pointer to whatever follows ``vma`` in the list of its mapping."""
        return vma + _NEXT_SHARE

    def remove_shared_vm_struct(self, vma: int) -> None:
        """Out of the list of its mapping, and no longer against writing."""
        area = self._areas.vma(vma)
        if not area.vm_file:
            return
        inode = self._areas.files.inode(self._areas.files.inode_of(area.vm_file))
        if area.vm_flags & VM_DENYWRITE:
            inode.i_writecount += 1
        if area.vm_next_share:
            self._areas.vma(area.vm_next_share).vm_pprev_share = area.vm_pprev_share
        self._areas.words[area.vm_pprev_share - PAGE_OFFSET >> 2] = area.vm_next_share

    # -- merging -------------------------------------------------------------------------------

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
        self.vma_unlink(mm, following, prev)
        self._areas.mm(mm).map_count -= 1
        self._areas.free(following)
        return True

    def vma_merge(self, mm: int, place: Place, start: int, end: int, vm_flags: int) -> bool:
        """Grow a neighbour over ``start`` to ``end`` rather than making a new VMA.

        Nothing before the range: then the VMA behind it is where the tree ended, as for
        ``__vma_link()``.
        """
        if place.prev:
            prev = self._areas.vma(place.prev)
            if prev.vm_end == start and can_vma_merge(prev, vm_flags):
                prev.vm_end = end
                self.absorb_next(mm, place.prev)
                return True
            following = prev.vm_next
        else:
            following = place.rb_parent - VM_RB
        if not following:
            return False
        area = self._areas.vma(following)
        if area.vm_start != end or not can_vma_merge(area, vm_flags):
            return False
        area.vm_start = start
        return True
