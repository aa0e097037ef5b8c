# SPDX-License-Identifier: GPL-2.0-or-later
"""Reading files through the page cache.

Models linux-2.4.22 ``mm/filemap.c``: ``page_cache_read()``, ``read_cluster_nonblocking()``,
``do_generic_file_read()``. In RAM: cached frames, ``file->f_reada``. Not modelled: reading
ahead of a sequential reader (``generic_file_readahead()``), which changes when pages come and
not what is read.

What can fail: no memory, ``-ENOMEM``; a device that does not read, ``-EIO``.
"""

from collections.abc import Callable
from typing import Any

from kernel_model.arch_i386.page import PAGE_SIZE
from kernel_model.errno import EEXIST, EINVAL, EIO, ENOMEM
from kernel_model.mm.filemap.mapped_by import MappedBy
from kernel_model.mm.filemap.pages import FilePages

ReadActor = Callable[[int, int, int], int]
"""``(page, offset, length)``: take bytes of a frame; returns how many could be taken."""


class FileReader:
    """``read()`` of one machine's files."""

    def __init__(self, pages: FilePages, mapped_by: MappedBy) -> None:
        self._pages = pages
        self._mapped_by = mapped_by
        self._statics = pages.image.statics
        self._lru = pages.allocator.lru

    def page_cache_read(self, file: int, index: int) -> int:
        """Have a page cached, and its reading begun. 0 or ``-errno``."""
        pages = self._pages
        mapping = pages.mapping_of(file)
        if pages.cache.find_page(mapping, index):
            return 0
        page = pages.page_cache_alloc(mapping)
        if not page:
            return -ENOMEM
        error = pages.add_to_page_cache_unique(page, mapping, index)
        if not error:
            error = pages.readpage(file, page)
        pages.allocator.put_page(page)
        return 0 if error == -EEXIST else error

    def read_cluster_nonblocking(self, file: int, index: int, size: int) -> int:
        """The same for the whole cluster that a page lies in, up to page ``size``."""
        cluster = 1 << int(self._statics.page_cluster)
        first, error = index & -cluster, 0
        for at in range(first, min(first + cluster, size)):
            error = self.page_cache_read(file, at)
            if error < 0:
                break
        return error

    def make_uptodate(self, file: int, page: int) -> bool:
        """Fill a cached frame that is not up to date. False: it cannot be read."""
        pages = self._pages
        pages.lock_page(page)
        if pages.uptodate(page):
            pages.unlock_page(page)
            return True
        return pages.readpage(file, page) == 0 and pages.uptodate(page)

    def generic_file_read(self, file: int, count: int, pos: int, actor: ReadActor) -> int:
        """Give ``count`` bytes from ``pos`` on to ``actor``, page by page.

        Returns how many it took, or ``-errno`` if none. The caller moves ``f_pos``.
        """
        if count < 0:
            return -EINVAL
        pages, done, error = self._pages, 0, 0
        mapping, view = pages.mapping_of(file), pages.files.file(file)
        previous = self._previous(view)
        while done < count:
            index, offset = divmod(pos + done, PAGE_SIZE)
            length = min(pages.i_size(mapping) - (pos + done), PAGE_SIZE - offset, count - done)
            if length <= 0:
                break
            page, error = self._page_for_reading(file, mapping, index)
            if not page:
                break
            if self._mapped_by.writably(mapping):
                pages.tlb.caches.flush_dcache_page(page)
            if self._counts_as_use(view, index, offset, previous):
                self._lru.mark_page_accessed(page)
            previous = index
            taken = actor(page, offset, length)
            pages.allocator.put_page(page)
            done += taken
            if taken < length:
                break
        self._note_read(view, previous)
        return done or error

    def _previous(self, view: Any) -> int:
        """The page that the last call ended with; 2.4 does not note it."""
        return -1

    def _counts_as_use(self, view: Any, index: int, offset: int, previous: int) -> bool:
        """Whether a part of a page is its first; while a file is read on, that at its start."""
        return not offset or not view.f_reada

    def _note_read(self, view: Any, last: int) -> None:
        """The file has been read, to the page ``last``."""
        view.f_reada = 1

    def _page_for_reading(self, file: int, mapping: int, index: int) -> tuple[int, int]:
        """(a frame up to date, with a reference; 0), or (0, ``-errno``)."""
        pages = self._pages
        page = pages.cache.find_get_page(mapping, index)
        if not page:
            page = pages.page_cache_alloc(mapping)
            if not page:
                return 0, -ENOMEM
            error = pages.cache.add_to_page_cache(page, mapping, index)
            if not error:
                error = pages.readpage(file, page)
        elif pages.uptodate(page) or self.make_uptodate(file, page):
            return page, 0
        else:
            error = -EIO
        if not error and pages.uptodate(page):
            return page, 0
        pages.allocator.put_page(page)
        return 0, error or -EIO

    def read(self, file: int, count: int, pos: int) -> bytes:
        """What :meth:`generic_file_read` gives, as bytes; fewer at the end of the file.

        :raises OSError: with the kernel's error number.
        """
        parts: list[bytes] = []

        def take(page: int, offset: int, length: int) -> int:
            parts.append(self._pages.read_frame(page, offset, length))
            return length

        error = self.generic_file_read(file, count, pos, take)
        if error < 0:
            raise OSError(-error, "generic_file_read")
        return b"".join(parts)
