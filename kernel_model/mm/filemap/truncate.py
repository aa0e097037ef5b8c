# SPDX-License-Identifier: GPL-2.0-or-later
"""Cutting files off: pages go from the page cache, and from the processes that map them.

Models linux-2.4.22 ``mm/filemap.c``: ``truncate_inode_pages()``, ``invalidate_inode_pages()``,
and ``mm/memory.c: vmtruncate()``. In RAM: cached frames, ``i_size``, the PTEs of who maps the file.

A page that only its last bytes are cut off stays, with zeros there. What can fail: growing past
a size limit, ``-EFBIG``; the signal that comes with it is the caller's to send.
"""

from kernel_model.arch_i386.page import PAGE_SHIFT, PAGE_SIZE
from kernel_model.errno import EFBIG
from kernel_model.mm.filemap.mapped_by import MappedBy
from kernel_model.mm.filemap.pages import FilePages
from kernel_model.mm.page_flags import PG_UPTODATE
from kernel_model.structs.sched import RLIM_INFINITY, RLIMIT_FSIZE


class Truncation:
    """``truncate()`` of one machine's files."""

    def __init__(self, pages: FilePages, mapped_by: MappedBy) -> None:
        self._pages = pages
        self._mapped_by = mapped_by

    def truncate_inode_pages(self, mapping: int, start: int) -> None:
        """Drop what is cached from byte ``start`` of a file on, dirty or not."""
        pages = self._pages
        first, partial = start + PAGE_SIZE - 1 >> PAGE_SHIFT, start % PAGE_SIZE
        for page in pages.cache.cached(mapping):
            index = pages.cache.index(page)
            if index >= first:
                self._drop(page)
            elif partial and index == first - 1:
                pages.lock_page(page)
                pages.clear_frame(page, partial)
                pages.tlb.caches.flush_dcache_page(page)
                pages.tlb.caches.flush_page_to_ram(page)
                pages.unlock_page(page)

    def _drop(self, page: int) -> None:
        """``truncate_complete_page()``. A frame that somebody uses lives on without a file."""
        pages, memmap = self._pages, self._pages.memmap
        pages.allocator.get_page(page)
        pages.lock_page(page)
        self._off_lru(page)
        pages.cache.clear_page_dirty(page)
        memmap.clear_bit(page, PG_UPTODATE)
        pages.cache.remove_inode_page(page)
        pages.allocator.put_page(page)
        pages.unlock_page(page)
        pages.allocator.put_page(page)

    def _off_lru(self, page: int) -> None:
        """It is nobody's any more that could be written."""
        self._pages.allocator.lru.delete(page)

    def invalidate_inode_pages(self, mapping: int) -> None:
        """Drop the clean pages that nobody uses: the file was changed behind the cache's back."""
        pages = self._pages
        for page in pages.cache.clean(mapping):
            if not pages.locks.try_lock(page):
                continue
            unused = self._invalidates(page)
            if unused:
                self._off_lru(page)
                pages.cache.remove_inode_page(page)
            pages.unlock_page(page)
            if unused:
                pages.allocator.put_page(page)

    def _invalidates(self, page: int) -> bool:
        """Whether a clean page may go; the file's is the last reference."""
        return self._pages.memmap.count(page) == 1

    def vmtruncate(self, inode: int, offset: int) -> int:
        """Make a file ``offset`` bytes long, in memory and for its file system. 0 or ``-errno``."""
        pages, view = self._pages, self._pages.files.inode(inode)
        if view.i_size < offset:
            limit = int(pages.current.rlim[RLIMIT_FSIZE].rlim_cur)
            if limit != RLIM_INFINITY and offset > limit:
                return -EFBIG
            view.i_size = offset
        else:
            view.i_size = offset
            mapping = int(view.i_mapping)
            self._mapped_by.unmap_from(mapping, offset + PAGE_SIZE - 1 >> PAGE_SHIFT)
            self.truncate_inode_pages(mapping, offset)
        self._call_truncate(inode, int(view.i_op))
        return 0

    def _call_truncate(self, inode: int, i_op: int) -> None:
        image = self._pages.image
        if i_op and (truncate := int(image.at(image.structs.inode_operations, i_op).truncate)):
            image.functions.call(truncate, inode)
