# SPDX-License-Identifier: GPL-2.0-or-later
"""Which VMAs that touch could be one.

Models linux-2.6.11 ``mm/mmap.c: can_vma_merge_before()``, ``can_vma_merge_after()``,
``find_mergeable_anon_vma()`` (book 4.8). Two VMAs go on from one to the other when file, offset and
flags do, and when not each has pages of its own on a different list. Nothing here can fail.
"""

from typing import Final

from kernel_model.arch_i386.page import PAGE_SHIFT
from kernel_model.mm.mmap.areas import Areas, VmArea
from kernel_model.mm.mmap.find import Finder
from kernel_model.mm.mmap.parts import Content
from kernel_model.structs.linux_2_6.mm import VM_DONTCOPY, VM_DONTEXPAND, VM_IO, VM_RESERVED
from kernel_model.structs.mm import VM_ACCESS

VM_SPECIAL: Final = VM_IO | VM_DONTCOPY | VM_DONTEXPAND | VM_RESERVED
"""Drivers' mappings: they never merge."""
_U32: Final = 0xFFFFFFFF


def pages_of(area: VmArea) -> int:
    """``vma_pages()``."""
    return area.vm_end - area.vm_start >> PAGE_SHIFT


def same_anon_vma(one: int, other: int) -> bool:
    """``is_mergeable_anon_vma()``: a VMA that has none yet goes with each."""
    return not one or not other or one == other


class Neighbours:
    """Looks at the VMAs beside a range."""

    def __init__(self, areas: Areas, finder: Finder) -> None:
        self._areas = areas
        self._finder = finder

    def _alike(self, vma: int, content: Content) -> bool:
        """``is_mergeable_vma()``. Who wants to hear of each VMA that goes keeps all of them."""
        area = self._areas.vma(vma)
        if area.vm_flags != content.vm_flags or area.vm_file != content.file:
            return False
        return not self._areas.operation(vma, "close")

    def can_merge_before(self, vma: int, content: Content) -> bool:
        """Whether a VMA goes on where ``content``, up to its beginning, ends: at ``pgoff``."""
        area = self._areas.vma(vma)
        return (
            self._alike(vma, content)
            and same_anon_vma(content.anon_vma, area.anon_vma)
            and area.vm_pgoff == content.pgoff & _U32
        )

    def can_merge_after(self, vma: int, content: Content) -> bool:
        """Whether ``content``, from the end of a VMA on, goes on where that ends."""
        area = self._areas.vma(vma)
        return (
            self._alike(vma, content)
            and same_anon_vma(content.anon_vma, area.anon_vma)
            and area.vm_pgoff + pages_of(area) & _U32 == content.pgoff & _U32
        )

    def find_mergeable_anon_vma(self, vma: int) -> int:
        """The list of a neighbour that may merge with a VMA if ``mprotect()`` makes them alike."""
        area = self._areas.vma(vma)
        behind = area.vm_next
        if behind and self._areas.vma(behind).vm_start == area.vm_end:
            wanted = self._as_protected_as(behind, area, area.vm_pgoff + pages_of(area))
            anon_vma = self._areas.vma(behind).anon_vma
            if anon_vma and self.can_merge_before(behind, wanted):
                return anon_vma
        _, before = self._finder.find_vma_prev(area.vm_mm, area.vm_start)
        if before and self._areas.vma(before).vm_end == area.vm_start:
            wanted = self._as_protected_as(before, area, area.vm_pgoff)
            anon_vma = self._areas.vma(before).anon_vma
            if anon_vma and self.can_merge_after(before, wanted):
                return anon_vma
        return 0

    def _as_protected_as(self, neighbour: int, area: VmArea, pgoff: int) -> Content:
        """What a VMA maps, as if it were protected like its neighbour."""
        access = self._areas.vma(neighbour).vm_flags & VM_ACCESS
        return Content(area.vm_flags & ~VM_ACCESS | access, area.vm_file, pgoff)
