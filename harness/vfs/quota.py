# SPDX-License-Identifier: GPL-2.0-or-later
"""How much a program may keep in files: the bounds of the writable layer.

Models what linux-2.4.22 ``mm/shmem.c`` counts in ``struct shmem_sb_info``: whole pages and inodes,
a further link counting as an inode. Besides, the number of open files, as ``fs/file_table.c`` has
it in ``files_stat.max_files``. What can fail: ``ENOSPC`` and ``ENFILE``.
"""

import errno
from dataclasses import dataclass

from harness.vfs.failure import fail
from kernel_model.ram import PAGE_SIZE


@dataclass(slots=True)
class Quota:
    """Limits, and what is used of them."""

    max_pages: int = (64 << 20) // PAGE_SIZE
    max_inodes: int = 16384
    max_files: int = 8192
    max_watches: int = 32768
    """Files in sets of files, counted in each."""
    pages: int = 0
    inodes: int = 0
    files: int = 0
    watches: int = 0
    max_buffered: int = 64 << 20
    """Bytes that were sent by sockets and not read so far."""
    buffered: int = 0

    def take_page(self) -> None:
        if self.pages >= self.max_pages:
            fail(errno.ENOSPC)
        self.pages += 1

    def give_pages(self, count: int) -> None:
        assert self.pages >= count
        self.pages -= count

    def take_inode(self) -> None:
        if self.inodes >= self.max_inodes:
            fail(errno.ENOSPC)
        self.inodes += 1

    def give_inodes(self, count: int) -> None:
        assert self.inodes >= count
        self.inodes -= count

    def take_file(self) -> None:
        if self.files >= self.max_files:
            fail(errno.ENFILE)
        self.files += 1

    def give_file(self) -> None:
        assert self.files > 0
        self.files -= 1

    def take_watches(self, count: int) -> None:
        """More of them, or fewer."""
        if count > 0 and self.watches + count > self.max_watches:
            fail(errno.ENOSPC)
        self.watches += count

    def take_buffers(self, count: int) -> None:
        if self.buffered + count > self.max_buffered:
            fail(errno.ENOBUFS)
        self.buffered += count

    def give_buffers(self, count: int) -> None:
        assert self.buffered >= count
        self.buffered -= count
