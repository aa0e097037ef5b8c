# SPDX-License-Identifier: GPL-2.0-or-later
"""Where VMAs hang: the list and the tree of their address space, and among those of their file.

Models ``mm/mmap.c: vma_link()``, ``__vma_link()`` and ``__vma_unlink()`` of linux-2.4.22 and 2.6.11
(book 4.4). In RAM: ``mm->mmap``, ``mm->mm_rb``, ``mm->map_count``. What can fail:
``insert_vm_struct()`` where another VMA is, in each release in its own way.
"""

from abc import ABC, abstractmethod

from kernel_model.mm.mmap.anon import AnonLinks
from kernel_model.mm.mmap.areas import Areas
from kernel_model.mm.mmap.find import VM_RB, Finder, Place
from kernel_model.mm.mmap.mappings import FileMappings
from kernel_model.mm.rbtree import RbTree


class Links(ABC):
    """Puts VMAs into their lists and trees, and takes them out."""

    def __init__(
        self, areas: Areas, finder: Finder, mappings: FileMappings, anon: AnonLinks
    ) -> None:
        self._areas = areas
        self._finder = finder
        self.mappings = mappings
        self.anon = anon
        self.tree = RbTree(areas.image.ram)
        self._mm_rb = areas.image.structs.mm_struct.offset("mm_rb")

    def _link_list(self, mm: int, vma: int, place: Place) -> None:
        """``__vma_link_list()``."""
        area = self._areas.vma(vma)
        if place.prev:
            prev = self._areas.vma(place.prev)
            area.vm_next, prev.vm_next = prev.vm_next, vma
        else:
            # The first VMA: with any other there, the tree ends at the one that follows.
            self._areas.mm(mm).mmap = vma
            area.vm_next = place.rb_parent - VM_RB if place.rb_parent else 0

    def link_rb(self, mm: int, vma: int, place: Place) -> None:
        """``__vma_link_rb()``."""
        self.tree.link_node(vma + VM_RB, place.rb_parent, place.rb_link)
        self.tree.insert_color(vma + VM_RB, mm + self._mm_rb)

    def link(self, mm: int, vma: int, place: Place) -> None:
        """``__vma_link()``, but for the file."""
        self._link_list(mm, vma, place)
        self.link_rb(mm, vma, place)
        self.anon.link(vma)
        self._areas.mm(mm).map_count += 1

    def vma_link(self, mm: int, vma: int, place: Place) -> None:
        """Link a VMA at the place that ``find_vma_prepare()`` found for it."""
        self.link(mm, vma, place)
        self.mappings.link(vma)

    @abstractmethod
    def insert_vm_struct(self, mm: int, vma: int) -> int:
        """Find the place of a VMA and link it: 0, or a negative error."""

    def _free_place(self, mm: int, vma: int) -> Place | None:
        """The place of a VMA; None: another one covers part of it."""
        area = self._areas.vma(vma)
        place = self._finder.find_vma_prepare(mm, area.vm_start)
        covered = place.vma and self._areas.vma(place.vma).vm_start < area.vm_end
        return None if covered else place

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
