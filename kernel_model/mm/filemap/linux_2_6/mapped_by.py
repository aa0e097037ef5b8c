# SPDX-License-Identifier: GPL-2.0-or-later
"""Who maps the pages of a file, in 2.6.

Models linux-2.6.11 ``mapping->i_mmap``, ``i_mmap_nonlinear``, ``i_mmap_writable`` and
``mm/memory.c: unmap_mapping_range()`` (book 3.10, 4.8). Nothing can fail.
"""

from collections.abc import Callable
from typing import Final

from kernel_model.image import KernelImage
from kernel_model.lists import Lists
from kernel_model.mm.filemap.mapped_by import VmaEnds
from kernel_model.mm.memory.linux_2_6.gather import ZapDetails
from kernel_model.mm.prio_tree import VM_SHARED_NODE, VmaPrioTree

LAST_INDEX: Final = 0xFFFFFFFF
ZapSomePages = Callable[..., None]
"""``zap_page_range(mm, address, size, details)``."""


class SharedTrees:
    """A prio tree of VMAs, and a list of those whose pages are in no order."""

    def __init__(self, image: KernelImage, zap_page_range: ZapSomePages) -> None:
        self._image = image
        self._zap_page_range = zap_page_range
        self._ends = VmaEnds(image)
        self._trees = VmaPrioTree(image.ram)
        self._lists = Lists(image.ram)
        kind = image.structs.address_space
        self._i_mmap, self._nonlinear = kind.offset("i_mmap"), kind.offset("i_mmap_nonlinear")

    def writably(self, mapping: int) -> bool:
        return bool(self._image.at(self._image.structs.address_space, mapping).i_mmap_writable)

    def unmap_from(self, mapping: int, first: int) -> None:
        """``unmap_mapping_range()``: private copies go, too."""
        for vma in list(self._trees.overlapping(mapping + self._i_mmap, first, LAST_INDEX)):
            mm, address, size = self._ends.range_from(vma, first)
            if size:
                self._zap_page_range(mm, address, size, ZapDetails(first, LAST_INDEX))
        for node in list(self._lists.entries(mapping + self._nonlinear)):
            vma = node - VM_SHARED_NODE
            mm, address, size = self._ends.range_from(vma, 0)
            details = ZapDetails(first, LAST_INDEX, nonlinear_vma=vma)
            self._zap_page_range(mm, address, size, details)
