# SPDX-License-Identifier: GPL-2.0-or-later
"""Who maps the pages of a file.

Models linux-2.4.22 ``mapping->i_mmap`` and ``i_mmap_shared`` (book 4.4.2), as those who cut a file
off or read it ask about them; for 2.6 see :mod:`.linux_2_6.mapped_by`. A mapping is the address of
a ``struct address_space``. Nothing can fail.
"""

from collections.abc import Callable
from typing import Any, Protocol

from kernel_model.arch_i386.page import PAGE_OFFSET, PAGE_SHIFT
from kernel_model.image import KernelImage

ZapPageRange = Callable[[int, int, int], None]
"""``zap_page_range(mm, address, size)``."""


class MappedBy(Protocol):
    """The VMAs of every file."""

    def writably(self, mapping: int) -> bool:
        """Whether a process may write to the file through its page tables."""

    def unmap_from(self, mapping: int, first: int) -> None:
        """Take the pages from ``first`` on away from everybody who maps them."""


class VmaEnds:
    """Unmaps the end of a VMA whose pages are in the order of the file."""

    def __init__(self, image: KernelImage) -> None:
        self.words = image.ram.words
        vma = image.structs.vm_area_struct
        self._vm_start, self._vm_end = vma.word("vm_start"), vma.word("vm_end")
        self._vm_pgoff, self._vm_mm = vma.word("vm_pgoff"), vma.word("vm_mm")

    def range_from(self, vma: int, first: int) -> tuple[int, int, int]:
        """(``mm``, address, size) of what a VMA has mapped from page ``first`` on."""
        words, at = self.words, vma - PAGE_OFFSET >> 2
        start, end = words[at + self._vm_start], words[at + self._vm_end]
        kept = max(first - words[at + self._vm_pgoff], 0) << PAGE_SHIFT
        return words[at + self._vm_mm], start + kept, max(end - start - kept, 0)


class SharedLists:
    """Two lists of VMAs, strung together by ``vm_next_share``."""

    def __init__(self, image: KernelImage, zap_page_range: ZapPageRange) -> None:
        self._image = image
        self._zap_page_range = zap_page_range
        self._ends = VmaEnds(image)
        self._vm_next_share = image.structs.vm_area_struct.word("vm_next_share")

    def _space(self, mapping: int) -> Any:
        return self._image.at(self._image.structs.address_space, mapping)

    def writably(self, mapping: int) -> bool:
        return bool(self._space(mapping).i_mmap_shared)

    def unmap_from(self, mapping: int, first: int) -> None:
        space = self._space(mapping)
        for vma in (int(space.i_mmap), int(space.i_mmap_shared)):
            self._unmap_list(vma, first)

    def _unmap_list(self, vma: int, first: int) -> None:
        """``vmtruncate_list()``."""
        while vma:
            mm, address, size = self._ends.range_from(vma, first)
            if size:
                self._zap_page_range(mm, address, size)
            vma = self._ends.words[(vma - PAGE_OFFSET >> 2) + self._vm_next_share]
