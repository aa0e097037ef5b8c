# SPDX-License-Identifier: GPL-2.0-or-later
"""Cutting files off: pages go from the page cache, and from the processes that map them.

Models linux-2.4.22 ``mm/filemap.c``: ``truncate_inode_pages()``, ``invalidate_inode_pages()``,
and ``mm/memory.c: vmtruncate()``. In RAM: cached frames, ``i_size``, the VMAs on ``i_mmap`` and
``i_mmap_shared``.

A page that only its last bytes are cut off stays, with zeros there. What can fail: growing past
a size limit, ``-EFBIG``; the signal that comes with it is the caller's to send.
"""

from collections.abc import Callable

from kernel_model.arch_i386.page import PAGE_OFFSET, PAGE_SHIFT, PAGE_SIZE
from kernel_model.errno import EFBIG
from kernel_model.mm.filemap.pages import FilePages
from kernel_model.mm.page_flags import PG_DIRTY, PG_UPTODATE
from kernel_model.structs.sched import RLIM_INFINITY, RLIMIT_FSIZE

ZapPageRange = Callable[[int, int, int], None]
"""``zap_page_range(mm, address, size)``."""


class Truncation:
    """``truncate()`` of one machine's files."""

    def __init__(self, pages: FilePages, zap_page_range: ZapPageRange) -> None:
        self._pages = pages
        self._zap_page_range = zap_page_range
        self._words = pages.image.ram.words
        self._page_lists = tuple(
            pages.image.structs.address_space.offset(name)
            for name in ("clean_pages", "dirty_pages", "locked_pages")
        )
        vma = pages.image.structs.vm_area_struct
        self._vm_start, self._vm_end = vma.word("vm_start"), vma.word("vm_end")
        self._vm_pgoff, self._vm_mm = vma.word("vm_pgoff"), vma.word("vm_mm")
        self._vm_next_share = vma.word("vm_next_share")

    def truncate_inode_pages(self, mapping: int, start: int) -> None:
        """Drop what is cached from byte ``start`` of a file on, dirty or not."""
        pages, lists = self._pages, self._pages.lists
        first, partial = start + PAGE_SIZE - 1 >> PAGE_SHIFT, start % PAGE_SIZE
        for offset in self._page_lists:
            for page in reversed(list(lists.entries(mapping + offset))):
                index = pages.cache.index(page)
                if index >= first:
                    self._drop(page)
                elif partial and index == first - 1:
                    pages.lock_page(page)
                    pages.clear_frame(page, partial)
                    pages.tlb.caches.flush_page_to_ram(page)
                    pages.unlock_page(page)

    def _drop(self, page: int) -> None:
        """``truncate_complete_page()``. A frame that somebody uses lives on without a file."""
        pages, memmap = self._pages, self._pages.memmap
        pages.allocator.get_page(page)
        pages.lock_page(page)
        pages.allocator.lru.delete(page)
        memmap.clear_bit(page, PG_DIRTY)
        memmap.clear_bit(page, PG_UPTODATE)
        pages.cache.remove_inode_page(page)
        pages.allocator.put_page(page)
        pages.unlock_page(page)
        pages.allocator.put_page(page)

    def invalidate_inode_pages(self, mapping: int) -> None:
        """Drop the clean pages that nobody uses: the file was changed behind the cache's back."""
        pages = self._pages
        for page in list(pages.lists.entries(mapping + self._page_lists[0])):
            if not pages.locks.try_lock(page):
                continue
            unused = pages.memmap.count(page) == 1
            if unused:
                pages.allocator.lru.delete(page)
                pages.cache.remove_inode_page(page)
            pages.unlock_page(page)
            if unused:
                pages.allocator.put_page(page)

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
            space, first = pages.space(mapping), offset + PAGE_SIZE - 1 >> PAGE_SHIFT
            self._vmtruncate_list(int(space.i_mmap), first)
            self._vmtruncate_list(int(space.i_mmap_shared), first)
            self.truncate_inode_pages(mapping, offset)
        self._call_truncate(inode, int(view.i_op))
        return 0

    def _call_truncate(self, inode: int, i_op: int) -> None:
        image = self._pages.image
        if i_op and (truncate := int(image.at(image.structs.inode_operations, i_op).truncate)):
            image.functions.call(truncate, inode)

    def _vmtruncate_list(self, vma: int, first: int) -> None:
        """Unmap the pages from ``first`` on in every VMA of a list."""
        words = self._words
        while vma:
            at = vma - PAGE_OFFSET >> 2
            start, end = words[at + self._vm_start], words[at + self._vm_end]
            kept = max(first - words[at + self._vm_pgoff], 0) << PAGE_SHIFT
            if kept < end - start:
                self._zap_page_range(words[at + self._vm_mm], start + kept, end - start - kept)
            vma = words[at + self._vm_next_share]
