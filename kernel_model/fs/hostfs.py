# SPDX-License-Identifier: GPL-2.0-or-later
"""Files whose bytes lie outside the machine: the file system behind the page cache.

Models what a file system of linux-2.4.22 gives to ``mm/filemap.c`` (book 2.5, 4.4): the
operations of ``struct address_space_operations``, ``file_operations`` and
``inode_operations``, as ``fs/buffer.c`` writes them for disks (``block_read_full_page()``,
``block_write_full_page()``, ``block_prepare_write()``). A :class:`BackingStore` is the disk,
and like a swap area's disk it is not in RAM. In RAM: inodes, their pages, the three tables of
operations.

What can fail: a store that raises :class:`OSError`. A page that cannot be read is PG_error and
not up to date; one that cannot be written costs ``-EIO`` or ``-ENOSPC``, and its newer bytes.
"""

import errno as host_errno
from typing import Protocol

from kernel_model.arch_i386.page import PAGE_SHIFT, PAGE_SIZE
from kernel_model.errno import EIO, ENOSPC
from kernel_model.mm.filemap import Filemap, FilePages
from kernel_model.mm.page_flags import PG_ERROR, PG_UPTODATE


class BackingStore(Protocol):
    """The bytes of one file, by page."""

    @property
    def size(self) -> int:
        """Bytes of the file."""

    def read_page(self, index: int) -> bytes:
        """A page, with zeros behind the end of the file."""

    def write_page(self, index: int, data: bytes) -> None:
        """Keep a page; what lies behind the end of the file is not kept."""

    def truncate(self, size: int) -> None:
        """Cut the file off, or let it grow by zeros."""


class HostFs:
    """The files of one machine that have a backing store."""

    def __init__(self, pages: FilePages, filemap: Filemap) -> None:
        self._pages = pages
        self._filemap = filemap
        self._files = pages.files
        self._image = pages.image
        self._stores: dict[int, BackingStore] = {}
        """The store of each inode, by the address of the inode."""
        address, statics = self._image.functions.address, self._image.statics
        statics.hostfs_aops.readpage = address(self.readpage)
        statics.hostfs_aops.writepage = address(self.writepage)
        statics.hostfs_aops.prepare_write = address(self.prepare_write)
        statics.hostfs_aops.commit_write = address(self.commit_write)
        statics.hostfs_file_operations.mmap = address(filemap.generic_file_mmap)
        statics.hostfs_file_operations.fsync = address(self.fsync)
        statics.hostfs_inode_operations.truncate = address(self.truncate)
        filemap.evict.clear_inode[self._image.symbol("hostfs_aops")] = self.clear_inode

    # -- opening and closing -------------------------------------------------------------------

    def find(self, store: BackingStore) -> int:
        """The inode that a store has now; 0: none."""
        return next((inode for inode, known in self._stores.items() if known is store), 0)

    def iget(self, store: BackingStore) -> int:
        """The inode of a store, with a reference: every opener has the same; 0: no memory."""
        if inode := self.find(store):
            self._files.inode(inode).i_count += 1
            return inode
        inode = self._files.new_inode(store.size, self._image.symbol("hostfs_aops"))
        if inode:
            view = self._files.inode(inode)
            highuser = self._image.constants.gfp.highuser
            self._files.set_mapping_gfp_mask(int(view.i_mapping), highuser)
            view.i_op = self._image.symbol("hostfs_inode_operations")
            view.i_fop = self._image.symbol("hostfs_file_operations")
            self._stores[inode] = store
        return inode

    def open(self, store: BackingStore, name: str, mode: int, flags: int = 0) -> int:
        """An open file; ``mode`` of FMODE_*, ``flags`` of O_*. 0 when memory is out.

        While nobody has the file, nothing of it stays cached: keep an inode by :meth:`iget`.
        """
        inode = self.iget(store)
        if not inode:
            return 0
        operations = self._image.symbol("hostfs_file_operations")
        file = self._files.open_inode(inode, name, mode, operations)
        if file:
            self._files.file(file).f_flags = flags
        else:
            self._files.iput(inode)
        return file

    def clear_inode(self, inode: int) -> None:
        """The last user of the inode is gone, and so are its pages."""
        del self._stores[inode]

    # -- pages ---------------------------------------------------------------------------------

    def _place(self, page: int) -> tuple[BackingStore, int, int]:
        """(store, bytes of the file, index) of a cached page."""
        cache = self._pages.cache
        inode = int(self._pages.space(cache.mapping(page)).host)
        return self._stores[inode], int(self._files.inode(inode).i_size), cache.index(page)

    def _fill(self, page: int) -> bool:
        """Bring a frame up to date from the store."""
        store, _, index = self._place(page)
        memmap = self._pages.memmap
        try:
            data = store.read_page(index)
        except OSError:
            memmap.set_bit(page, PG_ERROR)
            return False
        self._pages.write_frame(page, 0, data.ljust(PAGE_SIZE, b"\0"))
        self._pages.tlb.caches.flush_dcache_page(page)
        memmap.clear_bit(page, PG_ERROR)
        memmap.set_bit(page, PG_UPTODATE)
        return True

    def readpage(self, file: int, page: int) -> int:
        """Read a locked page. Whether that worked shows in the page alone."""
        self._fill(page)
        self._pages.unlock_page(page)
        return 0

    def writepage(self, page: int) -> int:
        """Write a locked page; what a process wrote behind the end of the file becomes zeros."""
        store, size, index = self._place(page)
        error = -EIO
        inside = size - (index << PAGE_SHIFT)
        if inside > 0:
            if inside < PAGE_SIZE:
                self._pages.clear_frame(page, inside)
                self._pages.tlb.caches.flush_dcache_page(page)
            error = self._store(page, store, index)
        self._pages.unlock_page(page)
        return error

    def _store(self, page: int, store: BackingStore, index: int) -> int:
        try:
            store.write_page(index, self._pages.read_frame(page))
        except OSError as refused:
            self._pages.memmap.set_bit(page, PG_ERROR)
            return _kernel_error(refused)
        return 0

    def prepare_write(self, file: int, page: int, start: int, end: int) -> int:
        """Bytes ``start`` to ``end`` of a locked page will change: have the others right."""
        if self._pages.uptodate(page):
            return 0
        _, size, index = self._place(page)
        whole = start == 0 and end == PAGE_SIZE
        if not whole and index << PAGE_SHIFT < size:
            return 0 if self._fill(page) else -EIO
        self._pages.clear_frame(page)
        return 0

    def commit_write(self, file: int, page: int, start: int, end: int) -> int:
        """They have changed. The file may have grown."""
        pages = self._pages
        store, size, index = self._place(page)
        pages.memmap.set_bit(page, PG_UPTODATE)
        pages.cache.set_page_dirty(page)
        position = (index << PAGE_SHIFT) + end
        if position <= size:
            return 0
        self._files.inode(self._files.inode_of(file)).i_size = position
        return self._resize(store, position)

    # -- files ---------------------------------------------------------------------------------

    def fsync(self, file: int, dentry: int, datasync: int) -> int:
        """Nothing is kept of a file but its pages."""
        return 0

    def truncate(self, inode: int) -> None:
        """``i_size`` has changed: so has the file."""
        store, size = self._stores[inode], int(self._files.inode(inode).i_size)
        if store.size != size:
            self._resize(store, size)

    @staticmethod
    def _resize(store: BackingStore, size: int) -> int:
        try:
            store.truncate(size)
        except OSError as refused:
            return _kernel_error(refused)
        return 0

    # -- a store that is changed by others too ---------------------------------------------------

    def cached(self, inode: int, index: int) -> bytes | None:
        """A page as it is in memory, newer perhaps than the store's; ``None``: not cached."""
        page = self._pages.cache.find_page(int(self._files.inode(inode).i_mapping), index)
        return self._pages.read_frame(page) if page and self._pages.uptodate(page) else None

    def written(self, inode: int, index: int, offset: int, data: bytes) -> None:
        """These bytes were put into the store: a cached page must show them."""
        view = self._files.inode(inode)
        page = self._pages.cache.find_page(int(view.i_mapping), index)
        if page:
            self._pages.write_frame(page, offset, data)
            self._pages.tlb.caches.flush_dcache_page(page)
        view.i_size = max(int(view.i_size), (index << PAGE_SHIFT) + offset + len(data))

    def truncated(self, inode: int, size: int) -> None:
        """The store is ``size`` bytes long now."""
        if self._files.inode(inode).i_size != size:
            self._filemap.vmtruncate(inode, size)


def _kernel_error(refused: OSError) -> int:
    """The number that the kernel returns for what the host refused."""
    return -ENOSPC if refused.errno in (host_errno.ENOSPC, host_errno.EDQUOT) else -EIO
