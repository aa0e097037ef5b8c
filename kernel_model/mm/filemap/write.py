# SPDX-License-Identifier: GPL-2.0-or-later
"""Writing files through the page cache.

Models linux-2.4.22 ``mm/filemap.c: generic_file_write()``. In RAM: cached frames, which become
dirty; ``i_size``. The signal SIGXFSZ that comes with ``-EFBIG`` is the caller's to send.

What can fail: no memory, ``-ENOMEM``; a size limit, ``-EFBIG``; the file system or the source
of the bytes. What was written before stands, and its length is the answer.
"""

from collections.abc import Callable
from typing import Any, Final

from kernel_model.arch_i386.page import PAGE_SIZE
from kernel_model.errno import EFAULT, EFBIG, EINVAL, ENOMEM
from kernel_model.mm.filemap.pages import FilePages
from kernel_model.mm.filemap.sync import WriteBack
from kernel_model.mm.filemap.truncate import Truncation
from kernel_model.mm.page_flags import PG_REFERENCED
from kernel_model.structs.sched import RLIM_INFINITY, RLIMIT_FSIZE

O_APPEND: Final = 0o2000
O_SYNC: Final = 0o10000
O_LARGEFILE: Final = 0o100000
MAX_NON_LFS: Final = (1 << 31) - 1
"""How far a file reaches that was opened without O_LARGEFILE."""
MAX_LFS_FILESIZE: Final = (PAGE_SIZE << 31) - 1

WriteSource = Callable[[int, int, int], int]
"""``(page, offset, length)``: put the next bytes into a frame; returns how many could not be."""


class FileWriter:
    """``write()`` of one machine's files."""

    def __init__(self, pages: FilePages, write_back: WriteBack, truncation: Truncation) -> None:
        self._pages = pages
        self._write_back = write_back
        self._truncation = truncation

    def generic_file_write(self, file: int, count: int, pos: int, source: WriteSource) -> int:
        """Write ``count`` bytes from ``source`` at ``pos``. Bytes written, or ``-errno``.

        The caller moves ``f_pos``; with O_APPEND the bytes go to the end of the file.
        """
        pages = self._pages
        view, mapping = pages.files.file(file), pages.mapping_of(file)
        if view.f_flags & O_APPEND:
            pos = pages.i_size(mapping)
        count = self._allowed(view, count, pos)
        if count <= 0:
            return count
        done, status = 0, 0
        while done < count:
            index, offset = divmod(pos + done, PAGE_SIZE)
            length = min(PAGE_SIZE - offset, count - done)
            page = pages.grab_cache_page(mapping, index)
            if not page:
                status = -ENOMEM
                break
            ends = file, page, offset, offset + length
            status = pages.call_a_op(mapping, "prepare_write", *ends)
            if status:
                self._release(page)
                self._trim(mapping, pos + done + length)
                break
            status = self._copy(mapping, ends, source)
            self._used(page)
            self._release(page)
            if status < 0:
                break
            done += status
        if status >= 0 and view.f_flags & O_SYNC:
            status = self._write_back.filemap_fdatasync(mapping)
            self._write_back.filemap_fdatawait(mapping)
        return done or status

    def _copy(self, mapping: int, ends: tuple[int, int, int, int], source: WriteSource) -> int:
        """Bytes into a part of one locked page that is prepared. Their number, or ``-errno``."""
        pages, (_, page, offset, end) = self._pages, ends
        left = source(page, offset, end - offset)
        pages.tlb.caches.flush_dcache_page(page)
        status = pages.call_a_op(mapping, "commit_write", *ends)
        return -EFAULT if left else status or end - offset

    def _used(self, page: int) -> None:
        """A part of it was written."""
        self._pages.memmap.set_bit(page, PG_REFERENCED)

    def _release(self, page: int) -> None:
        self._pages.unlock_page(page)
        self._pages.allocator.put_page(page)

    def _trim(self, mapping: int, end: int) -> None:
        """Room that was prepared behind the end of the file goes back."""
        size = self._pages.i_size(mapping)
        if end > size:
            self._truncation.vmtruncate(int(self._pages.space(mapping).host), size)

    def _allowed(self, view: Any, count: int, pos: int) -> int:
        """``precheck_file_write()``: how many bytes the limits leave, or ``-errno``."""
        if pos < 0 or count < 0:
            return -EINVAL
        if view.f_error:
            error, view.f_error = int(view.f_error), 0
            return error
        limits = [MAX_LFS_FILESIZE]
        limit = int(self._pages.current.rlim[RLIMIT_FSIZE].rlim_cur)
        if limit != RLIM_INFINITY:
            limits.append(limit)
        if not view.f_flags & O_LARGEFILE:
            limits.append(MAX_NON_LFS)
        room = min(limits) - pos
        if count and room <= 0:
            return -EFBIG
        return min(count, room) if count else 0

    def write(self, file: int, data: bytes, pos: int) -> int:
        """:meth:`generic_file_write` of bytes that lie outside RAM."""
        rest = memoryview(data)

        def give(page: int, offset: int, length: int) -> int:
            nonlocal rest
            self._pages.write_frame(page, offset, bytes(rest[:length]))
            rest = rest[length:]
            return 0

        return self.generic_file_write(file, len(data), pos, give)
