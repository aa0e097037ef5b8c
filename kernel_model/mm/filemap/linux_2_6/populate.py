# SPDX-License-Identifier: GPL-2.0-or-later
"""Pages of a file at the addresses that ``remap_file_pages()`` chose.

Models linux-2.6.11 ``mm/filemap.c: filemap_populate()`` (book 4.8): each page of the range is
looked for in the page cache, read if it may take time, and installed; where it is not there and
must not be waited for, the PTE notes its number instead. In RAM: what
:mod:`kernel_model.mm.memory.linux_2_6.fremap` changes.

What can fail: ``-EINVAL`` behind the end of the file, ``-ENOMEM`` for a page that cannot be had.
The pages before it stay installed.
"""

from collections.abc import Callable

from kernel_model.arch_i386.page import PAGE_OFFSET, PAGE_SHIFT, PAGE_SIZE
from kernel_model.errno import EINVAL, ENOMEM
from kernel_model.image import KernelImage
from kernel_model.mm.memory.linux_2_6.fremap import FilePages
from kernel_model.mm.page_alloc import PageAllocator

GetPage = Callable[[int, int, bool], int]
"""``filemap_getpage(file, pgoff, nonblock)``: a frame up to date, with a reference; 0: none."""


class FilePopulator:
    """``vm_ops->populate`` of one machine's files. ``pages_of`` gives the pages of a file."""

    def __init__(
        self,
        image: KernelImage,
        allocator: PageAllocator,
        install: FilePages,
        pages_of: Callable[[int], int],
        getpage: GetPage,
    ) -> None:
        self._words = image.ram.words
        self._allocator = allocator
        self._install = install
        self._pages_of = pages_of
        self._getpage = getpage
        vma = image.structs.vm_area_struct
        self._vm_file, self._vm_mm = vma.word("vm_file"), vma.word("vm_mm")

    def filemap_populate(
        self, vma: int, vaddr: int, length: int, prot: int, pgoff: int, nonblock: int
    ) -> int:
        """Let the pages from ``vaddr`` on be those of the file from ``pgoff`` on. 0, or an
        error."""
        at = vma - PAGE_OFFSET >> 2
        file, mm = self._words[at + self._vm_file], self._words[at + self._vm_mm]
        left = length >> PAGE_SHIFT
        for number in range(left):
            if pgoff + left > self._pages_of(file):
                return -EINVAL
            place, index = vaddr + number * PAGE_SIZE, pgoff + number
            if error := self._populate_one(mm, vma, file, place, prot, index, bool(nonblock)):
                return error
        return 0

    def _populate_one(
        self, mm: int, vma: int, file: int, vaddr: int, prot: int, pgoff: int, nonblock: bool
    ) -> int:
        page = self._getpage(file, pgoff, nonblock)
        if not page:
            return self._install.install_file_pte(mm, vaddr, pgoff) if nonblock else -ENOMEM
        error = self._install.install_page(mm, vma, vaddr, page, prot)
        if error:
            self._allocator.put_page(page)
        return error
