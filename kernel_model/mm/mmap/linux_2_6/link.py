# SPDX-License-Identifier: GPL-2.0-or-later
"""Putting in a VMA whose place is not known yet, as 2.6 does it.

Models linux-2.6.11 ``mm/mmap.c: insert_vm_struct()``, ``__insert_vm_struct()``. What can fail:
``-ENOMEM`` where another VMA is; for a part of a VMA that is the kernel's own ``BUG()``.
"""

from kernel_model.arch_i386.page import PAGE_SHIFT
from kernel_model.errno import ENOMEM
from kernel_model.errors import KernelBug
from kernel_model.mm.mmap.areas import Areas
from kernel_model.mm.mmap.find import Finder, Place
from kernel_model.mm.mmap.link import Links
from kernel_model.mm.mmap.linux_2_6.mappings import MappingTrees
from kernel_model.mm.rmap.anon_vma import AnonVmas


class RefusingLinks(Links):
    """:class:`Links` that refuse a VMA where another one is."""

    mappings: MappingTrees
    anon: AnonVmas

    def __init__(
        self, areas: Areas, finder: Finder, mappings: MappingTrees, anon: AnonVmas
    ) -> None:
        super().__init__(areas, finder, mappings, anon)

    def vma_link(self, mm: int, vma: int, place: Place) -> None:
        """Link a VMA at the place that ``find_vma_prepare()`` found for it.

        A truncation of its file that is under way need not look at it.
        """
        area, files = self._areas.vma(vma), self._areas.files
        if area.vm_file:
            inode = files.inode(files.inode_of(area.vm_file))
            area.vm_truncate_count = int(inode.i_data.truncate_count)
        super().vma_link(mm, vma, place)

    def insert_vm_struct(self, mm: int, vma: int) -> int:
        """Find the place of a VMA and link it: 0, or ``-ENOMEM``.

        Zeros lie at the page of their address, so that they merge as file pages do.
        """
        area = self._areas.vma(vma)
        if not area.vm_file:
            if area.anon_vma:
                raise KernelBug("mmap.c", 0, "a new VMA has pages of its own already")
            area.vm_pgoff = area.vm_start >> PAGE_SHIFT
        place = self._free_place(mm, vma)
        if place is None:
            return -ENOMEM
        self.vma_link(mm, vma, place)
        return 0

    def insert_part(self, mm: int, vma: int) -> None:
        """``__insert_vm_struct()``: the rest of a VMA, which its file knows already."""
        place = self._free_place(mm, vma)
        if place is None:
            raise KernelBug("mmap.c", 0, "a part of a VMA lies where another one is")
        self.link(mm, vma, place)
