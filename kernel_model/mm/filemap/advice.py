# SPDX-License-Identifier: GPL-2.0-or-later
"""What a process says about its use of a mapping, and what it asks.

Models linux-2.4.22 ``mm/filemap.c``: ``madvise_willneed()``, ``madvise_dontneed()``,
``mincore_vma()``: the parts that touch pages. In RAM: cached frames, PTEs.

What can fail: ``-errno`` as the kernel has it; :meth:`Advice.madvise_willneed` also answers
``-EIO`` when there was nothing to read.
"""

from typing import Any

from kernel_model.arch_i386.page import PAGE_SHIFT
from kernel_model.errno import EBADF, EINVAL, EIO, ENOMEM
from kernel_model.mm.filemap.mapped_by import ZapPageRange
from kernel_model.mm.filemap.pages import FilePages
from kernel_model.mm.filemap.read import FileReader
from kernel_model.structs.linux_2_6.mm import VM_HUGETLB
from kernel_model.structs.mm import VM_LOCKED, VM_RAND_READ
from kernel_model.structs.sched import RLIMIT_RSS


class Advice:
    """``madvise()`` and ``mincore()`` of one machine. A ``vma`` is an address."""

    def __init__(self, pages: FilePages, reader: FileReader, zap_page_range: ZapPageRange) -> None:
        self._pages = pages
        self._reader = reader
        self._zap_page_range = zap_page_range
        self._structs = pages.image.structs

    def madvise_willneed(self, vma: int, start: int, end: int) -> int:
        """Read the pages in now, by clusters unless the VMA is used at random."""
        pages, view = self._pages, self._pages.image.at(self._structs.vm_area_struct, vma)
        if not view.vm_file:
            return -EBADF
        file = int(view.vm_file)
        size = pages.pages_of(pages.mapping_of(file))
        index, last = self._index(view, start), self._index(view, min(end, view.vm_end))
        rss = int(pages.image.at(self._structs.mm_struct, view.vm_mm).rss)
        if rss + last - index > int(pages.current.rlim[RLIMIT_RSS].rlim_cur):
            return -EIO
        alone = bool(view.vm_flags & VM_RAND_READ)
        cluster = 1 if alone else 1 << int(pages.image.statics.page_cluster)
        error = -EIO
        for at in range(index & -cluster, min(last + cluster - 1 & -cluster, size), cluster):
            if alone:
                error = self._reader.page_cache_read(file, at)
            else:
                error = self._reader.read_cluster_nonblocking(file, at, size)
            if error < 0:
                break
        return error

    def madvise_dontneed(self, vma: int, start: int, end: int) -> int:
        """Unmap the pages; the next touch brings what the file has, or zeros."""
        view = self._pages.image.at(self._structs.vm_area_struct, vma)
        if view.vm_flags & (VM_LOCKED | VM_HUGETLB):
            return -EINVAL
        self._unmap(vma, start, end)
        return 0

    def _unmap(self, vma: int, start: int, end: int) -> None:
        view = self._pages.image.at(self._structs.vm_area_struct, vma)
        self._zap_page_range(int(view.vm_mm), start, end - start)

    def mincore_vma(self, vma: int, start: int, end: int) -> bytes | int:
        """For each page from ``start`` on 1 if it is cached and up to date, else 0."""
        view = self._pages.image.at(self._structs.vm_area_struct, vma)
        if not view.vm_file:
            return -ENOMEM
        mapping = self._pages.mapping_of(int(view.vm_file))
        first, last = self._index(view, start), self._index(view, min(end, view.vm_end))
        return bytes(self._mincore_page(mapping, index) for index in range(first, last))

    def _mincore_page(self, mapping: int, index: int) -> bool:
        page = self._pages.cache.find_page(mapping, index)
        return bool(page) and self._pages.uptodate(page)

    @staticmethod
    def _index(view: Any, address: int) -> int:
        """Which page of its file stands at ``address``."""
        return int(view.vm_pgoff) + (address - int(view.vm_start) >> PAGE_SHIFT)
