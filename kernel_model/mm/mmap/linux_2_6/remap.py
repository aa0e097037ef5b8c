# SPDX-License-Identifier: GPL-2.0-or-later
"""Mapping the pages of a file in any order, within one VMA.

Models linux-2.6.11 ``mm/fremap.c: sys_remap_file_pages()`` (book 4.8). A shared VMA whose pages are
no longer at their offsets has ``VM_NONLINEAR`` and leaves the file's prio tree for its list; which
page is where stands in the page tables alone, put there by ``vm_ops->populate``.

What can fail: ``-EINVAL`` for a range that is not in one shared VMA with that operation, or an
offset that no PTE can hold.
"""

from typing import Final

from kernel_model.arch_i386.page import PAGE_MASK, PAGE_SHIFT
from kernel_model.errno import EINVAL
from kernel_model.mm.mmap.areas import Areas
from kernel_model.mm.mmap.find import Finder
from kernel_model.mm.mmap.linux_2_6.mappings import MappingTrees
from kernel_model.structs.linux_2_6.mm import VM_NONLINEAR, VM_RESERVED
from kernel_model.structs.mm import VM_SHARED
from kernel_model.structs.mman import MAP_NONBLOCK

PTE_FILE_MAX_BITS: Final = {False: 29, True: 32}
"""Bits for an offset in a PTE that is not present; with PAE an upper word is free for it."""
_U32: Final = 0xFFFFFFFF


class FileRemapper:
    """``remap_file_pages()`` in the current address space."""

    def __init__(self, areas: Areas, finder: Finder, mappings: MappingTrees) -> None:
        self._areas = areas
        self._finder = finder
        self._mappings = mappings
        self._offset_bits = PTE_FILE_MAX_BITS[areas.image.structs.abi.pae]

    def sys_remap_file_pages(self, start: int, size: int, prot: int, pgoff: int, flags: int) -> int:
        """Let the pages from ``start`` on be those of the file from ``pgoff`` on.

        0, or a negative error; what ``populate()`` answers, if it comes to that.
        """
        start, size = start & PAGE_MASK, size & PAGE_MASK
        end = start + size
        if prot or not size or end > _U32:
            return -EINVAL
        if self._offset_bits < 32 and pgoff + (size >> PAGE_SHIFT) >= 1 << self._offset_bits:
            return -EINVAL
        vma = self._finder.find_vma(self._areas.current_mm, start)
        if not vma or not self._may_be_populated(vma, start, end):
            return -EINVAL
        area = self._areas.vma(vma)
        linear = area.vm_pgoff + (start - area.vm_start >> PAGE_SHIFT) & _U32
        if pgoff != linear and not area.vm_flags & VM_NONLINEAR:
            self._mappings.make_nonlinear(vma)
        populate = self._areas.operation(vma, "populate")
        call = self._areas.image.functions.call
        return call(populate, vma, start, size, area.vm_page_prot, pgoff, flags & MAP_NONBLOCK)

    def _may_be_populated(self, vma: int, start: int, end: int) -> bool:
        """Swapping out needs ``vm_private_data`` for itself in such a VMA."""
        area = self._areas.vma(vma)
        if not area.vm_flags & VM_SHARED or not self._areas.operation(vma, "populate"):
            return False
        if area.vm_private_data and not area.vm_flags & (VM_NONLINEAR | VM_RESERVED):
            return False
        return area.vm_start <= start and end <= area.vm_end
