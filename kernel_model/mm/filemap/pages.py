# SPDX-License-Identifier: GPL-2.0-or-later
"""The frames of files: found or made, locked, filled and written by their file system.

Models linux-2.4.22 ``mm/filemap.c``: ``lock_page()``, ``find_lock_page()``,
``grab_cache_page()``, and ``include/linux/pagemap.h: page_cache_alloc()`` (book 2.5). A file is
the address of its ``struct file``, a mapping that of its ``struct address_space``, a page that
of its ``struct page``.

The kernel reaches a frame through ``kmap()``; the bytes move here as a disk moves them, by
physical address, and the CPU is told.

What can fail: locking a frame that is locked, an :class:`EndlessLoop`: nobody else runs who
could unlock it. A file system's own functions return ``-errno``.
"""

from collections.abc import Iterator
from typing import Any, Final, Protocol

from kernel_model.arch_i386.page import PAGE_SHIFT, PAGE_SIZE
from kernel_model.arch_i386.tlb import Tlb
from kernel_model.errno import EEXIST
from kernel_model.errors import EndlessLoop
from kernel_model.fs.file_table import Files
from kernel_model.image import KernelImage
from kernel_model.lists import Lists
from kernel_model.mm.filemap.cache import PageCache
from kernel_model.mm.page_alloc import PageAllocator
from kernel_model.mm.page_flags import PG_UPTODATE
from kernel_model.mm.page_lock import PageLocks

PURPOSE: Final = "page cache"
"""What the frames of files are taken for."""


class UserPageTables(Protocol):
    """The page tables of user address spaces, as those who look for dirty pages see them."""

    def pgd(self, mm: int) -> int:
        """Physical address of the page directory of the ``mm_struct`` at ``mm``."""

    def ptes(self, pgd: int, start: int, end: int) -> Iterator[tuple[int, int]]:
        """(address, physical address of its PTE) of each PTE in a range that is not none."""


class FilePages:
    """What everything that handles pages of files shares, on one machine."""

    def __init__(
        self,
        image: KernelImage,
        allocator: PageAllocator,
        cache: PageCache,
        locks: PageLocks,
        files: Files,
        tlb: Tlb,
    ) -> None:
        self._ram = image.ram
        self._call = image.functions.call
        self.image = image
        self.allocator = allocator
        self.memmap = allocator.memmap
        self.cache = cache
        self.locks = locks
        self.files = files
        self.tlb = tlb
        self.lists = Lists(image.ram)

    # -- views -------------------------------------------------------------------------------

    def space(self, mapping: int) -> Any:
        """The ``struct address_space``."""
        return self.image.at(self.image.structs.address_space, mapping)

    def mapping_of(self, file: int) -> int:
        """``file->f_dentry->d_inode->i_mapping``."""
        return int(self.files.inode(self.files.inode_of(file)).i_mapping)

    def i_size(self, mapping: int) -> int:
        """Bytes of the file whose pages ``mapping`` holds."""
        return int(self.files.inode(int(self.space(mapping).host)).i_size)

    def pages_of(self, mapping: int) -> int:
        """Pages of that file, the last one perhaps in part."""
        return self.i_size(mapping) + PAGE_SIZE - 1 >> PAGE_SHIFT

    @property
    def current(self) -> Any:
        """The ``task_struct`` of the process that runs."""
        return self.image.current_task

    # -- locks ---------------------------------------------------------------------------------

    def lock_page(self, page: int) -> None:
        if not self.locks.try_lock(page):
            pfn = self.memmap.pfn(page)
            raise EndlessLoop(f"lock_page: frame {pfn:#x} is locked, and nobody will unlock it")

    def unlock_page(self, page: int) -> None:
        """Whoever waits for the frame may have it locked again when this returns."""
        self.locks.unlock_page(page)

    def uptodate(self, page: int) -> bool:
        """``Page_Uptodate``: the frame holds what the file does, or newer."""
        return self.memmap.test(page, PG_UPTODATE)

    # -- frames --------------------------------------------------------------------------------

    def page_cache_alloc(self, mapping: int) -> int:
        """A frame for a page of the file, of the memory that ``gfp_mask`` names; 0: none."""
        return self.allocator.alloc_page(self.files.mapping_gfp_mask(mapping), PURPOSE)

    def add_to_page_cache_unique(self, page: int, mapping: int, index: int) -> int:
        """Cache the frame, locked. 0, or ``-ENOMEM``; ``-EEXIST``: another one is cached there."""
        if self.cache.find_page(mapping, index):
            return -EEXIST
        return self.cache.add_to_page_cache(page, mapping, index)

    def find_lock_page(self, mapping: int, index: int) -> int:
        """The frame, locked, with a reference; 0 when it is not cached."""
        page = self.cache.find_get_page(mapping, index)
        if page:
            self.lock_page(page)
        return page

    def grab_cache_page(self, mapping: int, index: int) -> int:
        """The same, and a fresh one where there was none; 0 when memory is out."""
        page = self.find_lock_page(mapping, index)
        if page:
            return page
        page = self.page_cache_alloc(mapping)
        if page and self.cache.add_to_page_cache(page, mapping, index):
            self.allocator.put_page(page)
            return 0
        return page

    # -- contents ------------------------------------------------------------------------------

    def read_frame(self, page: int, offset: int = 0, length: int = PAGE_SIZE) -> bytes:
        """Bytes of a frame."""
        return self._ram.read((self.memmap.pfn(page) << PAGE_SHIFT) + offset, length)

    def write_frame(self, page: int, offset: int, data: bytes) -> None:
        """Put bytes into a frame; the CPU may hold code from there."""
        paddr = (self.memmap.pfn(page) << PAGE_SHIFT) + offset
        self._ram.write(paddr, data)
        self.tlb.processor.snoop(paddr, len(data))

    def clear_frame(self, page: int, offset: int = 0) -> None:
        """Zeros from ``offset`` to the end of the frame."""
        paddr = (self.memmap.pfn(page) << PAGE_SHIFT) + offset
        self._ram.fill(paddr, PAGE_SIZE - offset)
        self.tlb.processor.snoop(paddr, PAGE_SIZE - offset)

    # -- the file system's operations ----------------------------------------------------------

    def a_op(self, mapping: int, name: str) -> int:
        """The address of one of ``mapping->a_ops``; 0 when there is none of that name."""
        a_ops = int(self.space(mapping).a_ops)
        if not a_ops:
            return 0
        kind = self.image.structs.address_space_operations
        return int(getattr(self.image.at(kind, a_ops), name))

    def call_a_op(self, mapping: int, name: str, *arguments: int) -> int:
        """Call it; 0 or ``-errno``."""
        return self._call(self.a_op(mapping, name), *arguments)

    def readpage(self, file: int, page: int) -> int:
        """Fill a locked frame from the file. It comes back unlocked, and perhaps up to date."""
        return self.call_a_op(self.cache.mapping(page), "readpage", file, page)

    def writepage(self, page: int) -> int:
        """Write a locked, dirty frame back: from now on it is clean, and unlocked."""
        return self.call_a_op(self.cache.mapping(page), "writepage", page)
