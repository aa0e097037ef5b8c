# SPDX-License-Identifier: GPL-2.0-or-later
"""Faults on pages of files in 2.6, and pages at places that the process chose.

Models linux-2.6.11 ``mm/filemap.c``: ``filemap_nopage()``, ``filemap_getpage()``, and ``mm/shmem.c:
shmem_populate()`` (book 4.8). A page that had to be read makes a major fault. What can fail:
``NOPAGE_SIGBUS`` and ``NOPAGE_OOM``.
"""

from collections.abc import Callable
from typing import Final

from kernel_model.arch_i386.page import PAGE_OFFSET
from kernel_model.mm.filemap.linux_2_6.populate import FilePopulator
from kernel_model.mm.filemap.linux_2_6.read import FileReader26
from kernel_model.mm.filemap.nopage import NOPAGE_OOM, NOPAGE_SIGBUS, FileFaults
from kernel_model.mm.filemap.pages import FilePages
from kernel_model.mm.memory.linux_2_6.fault import NOPAGE_MAJOR
from kernel_model.mm.memory.linux_2_6.fremap import FilePages as PageInstaller
from kernel_model.mm.shmem.shmem import Sgp, Shmem
from kernel_model.structs.linux_2_6.fs import RA_MMAP_HIT, RA_MMAP_MISS, RA_PAGES

MMAP_LOTSAMISS: Final = 100
"""So many more misses than hits, and nothing is read ahead any more."""


class FileFaults26(FileFaults):
    """``generic_file_vm_ops`` of one machine."""

    def __init__(self, pages: FilePages, reader: FileReader26, install: PageInstaller) -> None:
        super().__init__(pages, reader)
        self._ahead = reader
        populator = FilePopulator(
            pages.image,
            pages.allocator,
            install,
            lambda file: pages.pages_of(pages.mapping_of(file)),
            self.filemap_getpage,
        )
        address = pages.image.functions.address
        pages.image.statics.generic_file_vm_ops.populate = address(populator.filemap_populate)

    def filemap_nopage(self, vma: int, address: int) -> int:
        page, read = self._find_or_read(vma, address)
        found = page not in (NOPAGE_SIGBUS, NOPAGE_OOM)
        if found and not read:
            file = self._words[(vma - PAGE_OFFSET >> 2) + self._vm_file]
            self._pages.files.file(file).f_ra[RA_MMAP_HIT] += 1
        return page | NOPAGE_MAJOR if read and found else page

    def _read_cluster(self, file: int, index: int, size: int) -> int:
        """The page with those around it, wherever the VMA ends, unless the file is one in which
        that was of no use. What could not be read ahead is nobody's loss."""
        history = self._pages.files.file(file).f_ra
        history[RA_MMAP_MISS] += 1
        if history[RA_MMAP_MISS] <= history[RA_MMAP_HIT] + MMAP_LOTSAMISS:
            count = self._ahead.max_sane_readahead(int(history[RA_PAGES]))
            self._ahead.do_page_cache_readahead(file, max(index - count // 2, 0), count)
        return self._ahead.page_cache_read(file, index)

    def filemap_getpage(self, file: int, pgoff: int, nonblock: bool) -> int:
        """A frame up to date, with a reference; 0: none, or it would have to be read."""
        pages = self._pages
        mapping = pages.mapping_of(file)
        page = pages.cache.find_get_page(mapping, pgoff)
        if nonblock and page and not pages.uptodate(page):
            pages.allocator.put_page(page)
            return 0
        if nonblock or (page and pages.uptodate(page)):
            return page
        if not page:
            if self._reader.page_cache_read(file, pgoff) < 0:
                return 0
            page = pages.cache.find_get_page(mapping, pgoff)
        if page and not pages.uptodate(page) and not self._read_again(file, page):
            pages.allocator.put_page(page)
            return 0
        return page


def shmem_populate(
    pages: FilePages, shmem: Shmem, install: PageInstaller
) -> Callable[[int, int, int, int, int, int], int]:
    """``shmem_vm_ops.populate`` of one machine. In 2.4 a page of zeros is made at once, too."""

    def getpage(file: int, pgoff: int, nonblock: bool) -> int:
        inode = pages.files.inode_of(file)
        page = shmem.shmem_getpage(inode, pgoff, Sgp.READ if nonblock else Sgp.CACHE)
        return max(page, 0)

    def pages_of(file: int) -> int:
        return pages.pages_of(pages.mapping_of(file))

    return FilePopulator(pages.image, pages.allocator, install, pages_of, getpage).filemap_populate
