# SPDX-License-Identifier: GPL-2.0-or-later
"""Object-based reverse mapping: a frame names its object, the object its VMAs.

Models linux-2.6.11 ``mm/rmap.c``: ``page_add_anon_rmap()``, ``page_add_file_rmap()``,
``page_remove_rmap()`` (book 3.10). No PTE is written down. In RAM: ``page->_mapcount``, how many
PTEs name the frame, less one; ``page->mapping``, for a process's own page the ``anon_vma`` with bit
0 set; ``page->index``, which page of the object it is.

What can fail: memory for an ``anon_vma``; a count below zero, or a reserved frame in the books, is
a :class:`~kernel_model.errors.KernelBug`.
"""

from collections.abc import Callable
from typing import Final

from kernel_model.arch_i386.page import PAGE_OFFSET
from kernel_model.errors import KernelBug
from kernel_model.image import KernelImage
from kernel_model.mm.mmzone import MemMap
from kernel_model.mm.rmap.mapped_pages import MappedPages

_FILE: Final = "rmap.c"
_NONE: Final = 0xFFFFFFFF
"""``_mapcount`` of a frame that nobody maps: -1."""


class ObjectReverseMap:
    """The counts of :class:`~kernel_model.mm.rmap.interface.ReverseMap`, of one machine."""

    def __init__(
        self, image: KernelImage, memmap: MemMap, anon_vma_prepare: Callable[[int], int]
    ) -> None:
        self._words = image.ram.words
        self._memmap = memmap
        self._anon_vma_prepare = anon_vma_prepare
        self._mapcount = image.structs.page.word("_mapcount")
        self.pages = MappedPages(image, memmap)

    # -- counts --------------------------------------------------------------------------------

    def mapcount(self, page: int) -> int:
        return self._words[(page - PAGE_OFFSET >> 2) + self._mapcount] + 1 & _NONE

    def mapped(self, page: int) -> bool:
        return self._words[(page - PAGE_OFFSET >> 2) + self._mapcount] != _NONE

    def _count(self, page: int) -> bool:
        """One PTE more. True: it is the first."""
        at = (page - PAGE_OFFSET >> 2) + self._mapcount
        first = self._words[at] == _NONE
        self._words[at] = self._words[at] + 1 & _NONE
        if first:
            self.pages.count_mapped(1)
        return first

    def _not_reserved(self, page: int) -> None:
        if self._memmap.reserved(page):
            raise KernelBug(_FILE, 0, f"frame {self._memmap.pfn(page):#x} is reserved")

    # -- books ---------------------------------------------------------------------------------

    def prepare(self, vma: int) -> bool:
        return not self._anon_vma_prepare(vma)

    def reserve(self) -> bool:
        return True

    def ready(self) -> bool:
        return True

    def add_anon(self, page: int, vma: int, vaddr: int, ptep: int) -> None:
        self._not_reserved(page)
        pages = self.pages
        anon_vma = pages.vma_anon_vma(vma)
        if not anon_vma:
            raise KernelBug(_FILE, 0, f"the VMA of {vaddr:#x} has no anon_vma")
        pages.count_anon_rss(pages.mm(vma), 1)
        if self._count(page):
            pages.make_anon(page, anon_vma, pages.linear_page_index(vma, vaddr))

    def add_file(self, page: int, ptep: int) -> None:
        if self.pages.anon(page):
            raise KernelBug(_FILE, 0, f"frame {self._memmap.pfn(page):#x} is no file's")
        if not self._memmap.reserved(page):
            self._count(page)

    def duplicate(self, mm: int, page: int, ptep: int) -> None:
        if self.pages.anon(page):
            self.pages.count_anon_rss(mm, 1)
        at = (page - PAGE_OFFSET >> 2) + self._mapcount
        self._words[at] = self._words[at] + 1 & _NONE

    def remove(self, mm: int, page: int, ptep: int) -> None:
        """``mapping`` and ``index`` stay: they count only while the frame is mapped, and help to
        put back what is still in the swap cache."""
        self._not_reserved(page)
        if self.pages.anon(page):
            self.pages.count_anon_rss(mm, -1)
        at = (page - PAGE_OFFSET >> 2) + self._mapcount
        if self._words[at] == _NONE:
            raise KernelBug(_FILE, 0, f"nobody maps frame {self._memmap.pfn(page):#x}")
        self._words[at] = self._words[at] - 1 & _NONE
        if self._words[at] == _NONE:
            self.pages.count_mapped(-1)

    def moved(self, page: int, source: int, to: int) -> None:
        """The VMA has moved, and with it all its PTEs."""

    def table_made(self, mm: int, vaddr: int, paddr: int) -> None:
        """Page tables are found from the VMA."""

    def table_freed(self, table: int) -> None:
        """Page tables are found from the VMA."""
