# SPDX-License-Identifier: GPL-2.0-or-later
"""Page faults in mapped files, and ``mmap()`` of them.

Models linux-2.4.22 ``mm/filemap.c``: ``filemap_nopage()``, ``generic_file_mmap()`` (book 4.4.1,
4.6). In RAM: cached frames. A page of a sequential or ordinary VMA brings its whole cluster;
of one with VM_RAND_READ it comes alone. Not modelled: reading ahead of a VMA with VM_SEQ_READ.

What can fail: a page behind the end of the file, or one that cannot be read: NOPAGE_SIGBUS; no
memory: NOPAGE_OOM.
"""

from typing import Final

from kernel_model.arch_i386.page import PAGE_OFFSET, PAGE_SHIFT
from kernel_model.errno import EINVAL, ENOEXEC, ENOMEM
from kernel_model.mm.filemap.pages import FilePages
from kernel_model.mm.filemap.read import FileReader
from kernel_model.mm.page_flags import PG_ERROR
from kernel_model.structs.mm import VM_MAYWRITE, VM_RAND_READ, VM_SHARED

NOPAGE_SIGBUS: Final = 0
NOPAGE_OOM: Final = -1


class FileFaults:
    """``generic_file_vm_ops`` of one machine."""

    def __init__(self, pages: FilePages, reader: FileReader) -> None:
        self._pages = pages
        self._reader = reader
        self._words = pages.image.ram.words
        vma = pages.image.structs.vm_area_struct
        self._vm_start, self._vm_end = vma.word("vm_start"), vma.word("vm_end")
        self._vm_pgoff, self._vm_flags = vma.word("vm_pgoff"), vma.word("vm_flags")
        self._vm_mm, self._vm_file = vma.word("vm_mm"), vma.word("vm_file")
        self._vm_ops = vma.word("vm_ops")
        functions = pages.image.functions
        pages.image.statics.generic_file_vm_ops.nopage = functions.address(self.filemap_nopage)

    def filemap_nopage(self, vma: int, address: int) -> int:
        """The page at ``address``, with a reference; ``NOPAGE_SIGBUS`` or ``NOPAGE_OOM``."""
        return self._find_or_read(vma, address)[0]

    def _read_cluster(self, file: int, index: int, size: int) -> int:
        """Read a page with those around it, up to page ``size``. 0 or ``-errno``."""
        return self._reader.read_cluster_nonblocking(file, index, size)

    def _find_or_read(self, vma: int, address: int) -> tuple[int, bool]:
        """The same, and whether it was read for this."""
        pages, words, at = self._pages, self._words, vma - PAGE_OFFSET >> 2
        file, start, pgoff = (
            words[at + w] for w in (self._vm_file, self._vm_start, self._vm_pgoff)
        )
        mapping = pages.mapping_of(file)
        index = (address - start >> PAGE_SHIFT) + pgoff
        mapped_end = (words[at + self._vm_end] - start >> PAGE_SHIFT) + pgoff
        read = False
        while True:
            size = pages.pages_of(mapping)
            if index >= size and words[at + self._vm_mm] == pages.current.mm:
                # Somebody who traces the process may look behind the end; the process may not.
                return NOPAGE_SIGBUS, False
            page = pages.cache.find_get_page(mapping, index)
            if page:
                break
            size, read = min(size, mapped_end), True
            if index < size and not words[at + self._vm_flags] & VM_RAND_READ:
                error = self._read_cluster(file, index, size)
            else:
                error = self._reader.page_cache_read(file, index)
            if error < 0:
                return NOPAGE_OOM if error == -ENOMEM else NOPAGE_SIGBUS, False
        if not pages.uptodate(page) and not self._read_again(file, page):
            pages.allocator.put_page(page)
            return NOPAGE_SIGBUS, False
        pages.allocator.lru.mark_page_accessed(page)
        pages.tlb.caches.flush_page_to_ram(page)
        return page, read

    def _read_again(self, file: int, page: int) -> bool:
        """Reading ahead may have failed where reading works: try twice more."""
        if self._reader.make_uptodate(file, page):
            return True
        self._pages.memmap.clear_bit(page, PG_ERROR)
        return self._reader.make_uptodate(file, page)

    def generic_file_mmap(self, file: int, vma: int) -> int:
        """``f_op->mmap``: pages of the VMA come from the page cache. 0 or ``-errno``."""
        pages, words, at = self._pages, self._words, vma - PAGE_OFFSET >> 2
        mapping, flags = pages.mapping_of(file), words[at + self._vm_flags]
        may_write = flags & VM_SHARED and flags & VM_MAYWRITE
        if may_write and not pages.a_op(mapping, "writepage"):
            return -EINVAL
        if not pages.a_op(mapping, "readpage"):
            return -ENOEXEC
        words[at + self._vm_ops] = pages.image.symbol("generic_file_vm_ops")
        return 0
