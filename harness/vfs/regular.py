# SPDX-License-Identifier: GPL-2.0-or-later
"""Regular files: pages of their own above what the host's file holds.

Models linux-2.4.22 ``mm/shmem.c`` and ``mm/filemap.c: generic_file_read/write``. A page is copied
when it is first written to; reading leaves the host's bytes where they are. What a model's page
cache holds goes before both: see :class:`AddressSpace`.

What can fail: ``ENOSPC`` by the quota, ``EFBIG`` past :data:`MAX_FILE_SIZE`, and what the host's
file fails with.
"""

import errno
import stat
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, Protocol

from harness.vfs.failure import fail
from harness.vfs.inode import Inode, SuperBlock
from kernel_model.ram import PAGE_SIZE

if TYPE_CHECKING:
    from harness.vfs.open_file import RegularOpenFile

MAX_FILE_SIZE: Final = (PAGE_SIZE << 31) - 1
"""``MAX_LFS_FILESIZE`` where a page's index has 32 bits."""

LowerRead = Callable[[int, int], bytes]
"""(count, position) -> bytes of the host's file, fewer at its end."""


class AddressSpace(Protocol):
    """The page cache over one file, where pages may be newer than the file's own."""

    def cached(self, index: int) -> bytes | None:
        """The page as it is in memory; ``None`` when it is not there."""

    def written(self, index: int, offset: int, data: bytes) -> None:
        """``write()`` put these bytes into the file: a page in memory must show them."""

    def truncated(self, size: int) -> None:
        """Pages past ``size`` are gone, and the rest of the last one is zero."""


class RegularFile(Inode):
    """Bytes. ``lower`` reads the host's, of which the first ``lower_size`` still show."""

    seekable = True

    def __init__(
        self,
        superblock: SuperBlock,
        mode: int,
        uid: int = 0,
        gid: int = 0,
        lower: LowerRead | None = None,
        lower_size: int = 0,
    ) -> None:
        super().__init__(superblock, stat.S_IFREG | mode & 0o7777, uid, gid)
        self._lower_read = lower
        self._lower_size = self._size = lower_size
        self._pages: dict[int, bytearray] = {}
        self.address_space: AddressSpace | None = None

    @property
    def size(self) -> int:
        return self._size

    @property
    def blocks(self) -> int:
        lower = -(-self._lower_size // PAGE_SIZE)
        own = sum(index >= lower for index in self._pages)
        return (lower + own) * (PAGE_SIZE // 512)

    def open(self, flags: int) -> "RegularOpenFile":
        from harness.vfs.open_file import RegularOpenFile

        return RegularOpenFile(self, flags)

    # -- by page: what a page cache fills and writes back ------------------------------------

    def read_page(self, index: int) -> bytes:
        """A whole page as the file has it, with zeros after its end."""
        page = self._pages.get(index)
        if page is not None:
            return bytes(page)
        return self._lower(index * PAGE_SIZE, PAGE_SIZE)

    def write_page(self, index: int, data: bytes) -> None:
        """Store a page that the page cache holds; bytes after the end of the file are not kept."""
        assert len(data) == PAGE_SIZE
        inside = self._size - index * PAGE_SIZE
        if inside > 0:
            self._own_page(index)[:] = data[:inside].ljust(PAGE_SIZE, b"\0")

    # -- by byte -----------------------------------------------------------------------------

    def read_at(self, position: int, count: int) -> bytes:
        """Fewer than ``count`` bytes at the end of the file."""
        count = min(count, self._size - position)
        if count <= 0:
            return b""
        if not self._pages and self.address_space is None:
            return self._lower(position, count)
        parts = []
        for index in range(position // PAGE_SIZE, (position + count - 1) // PAGE_SIZE + 1):
            parts.append(self._newest(index))
        skipped = position % PAGE_SIZE
        return b"".join(parts)[skipped : skipped + count]

    def write_at(self, position: int, data: bytes) -> int:
        """How many of the bytes were written: fewer when the quota ends among them."""
        if position >= MAX_FILE_SIZE:
            fail(errno.EFBIG)
        data = data[: MAX_FILE_SIZE - position]
        done = 0
        try:
            while done < len(data):
                index, offset = divmod(position + done, PAGE_SIZE)
                part = data[done : done + PAGE_SIZE - offset]
                self._own_page(index)[offset : offset + len(part)] = part
                if self.address_space is not None:
                    self.address_space.written(index, offset, part)
                done += len(part)
        except OSError:
            if not done:
                raise
        self._size = max(self._size, position + done)
        self.modified()
        return done

    def truncate(self, size: int) -> None:
        """Cut to ``size``, or grow with zeros."""
        if size > MAX_FILE_SIZE:
            fail(errno.EFBIG)
        if size < self._size:
            index, offset = divmod(size, PAGE_SIZE)
            beyond = [at for at in self._pages if at > index or (at == index and not offset)]
            for at in beyond:
                del self._pages[at]
            self.superblock.quota.give_pages(len(beyond))
            if offset and index in self._pages:
                self._pages[index][offset:] = bytes(PAGE_SIZE - offset)
            self._lower_size = min(self._lower_size, size)
        self._size = size
        if self.address_space is not None:
            self.address_space.truncated(size)
        self.modified()

    def evict(self) -> None:
        self.superblock.quota.give_pages(len(self._pages))
        self._pages.clear()
        self._lower_read = None
        self._lower_size = self._size = 0

    # -- pages -------------------------------------------------------------------------------

    def _newest(self, index: int) -> bytes:
        if self.address_space is not None:
            page = self.address_space.cached(index)
            if page is not None:
                return page
        return self.read_page(index)

    def _own_page(self, index: int) -> bytearray:
        page = self._pages.get(index)
        if page is None:
            content = self._lower(index * PAGE_SIZE, PAGE_SIZE)
            self.superblock.quota.take_page()
            page = self._pages[index] = bytearray(content)
        return page

    def _lower(self, position: int, count: int) -> bytes:
        """Exactly ``count`` bytes: the host's as far as they show, then zeros."""
        shown = min(count, self._lower_size - position)
        data = b""
        if shown > 0 and self._lower_read is not None:
            data = self._lower_read(shown, position)
        return data.ljust(count, b"\0")
