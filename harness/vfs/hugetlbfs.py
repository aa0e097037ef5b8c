# SPDX-License-Identifier: GPL-2.0-or-later
"""``/dev/hugepages``: names for files of huge pages.

Models what linux-2.6.11 ``fs/hugetlbfs/inode.c`` offers to system calls (book 3.10): files can be
made, mapped, truncated and removed, not read or written. The files themselves are the model's: see
:class:`HugeInodes`.

What can fail: ``ENOSPC`` when the mount may have no more files; ``EINVAL`` for reading, writing,
and for a size that is not made of whole huge pages or larger than it was.
"""

import errno
from collections.abc import Callable
from typing import Final, Protocol

from harness.vfs.failure import fail
from harness.vfs.inode import Inode, SuperBlock
from harness.vfs.open_file import RegularOpenFile
from harness.vfs.quota import Quota
from harness.vfs.regular import RegularFile

HUGETLBFS_MAGIC: Final = 0x958458F6


class HugeInodes(Protocol):
    """The inodes of one mount. Each call but ``release`` may answer a negative error."""

    def new(self, mode: int) -> int:
        """A file without pages, which its maker holds."""

    def size(self, inode: int) -> int: ...

    def truncate(self, inode: int, size: int) -> int: ...

    def open(self, inode: int, name: str, mode: int) -> int:
        """A ``struct file *`` with one reference, for mapping; 0: no memory."""

    def release(self, inode: int) -> None:
        """No name leads to it, and nobody holds it open: who maps it may keep it."""


class HugeOpenFile(RegularOpenFile):
    """One that can be mapped and truncated; there are no operations to read or write it."""

    def read(self, count: int) -> bytes:
        del count
        fail(errno.EINVAL)

    def write(self, data: bytes) -> int:
        del data
        fail(errno.EINVAL)

    def read_at(self, position: int, count: int) -> bytes:
        del position, count
        fail(errno.EINVAL)

    def write_at(self, position: int, data: bytes) -> int:
        del position, data
        fail(errno.EINVAL)


class HugeFile(RegularFile):
    """A file of huge pages; ``inode`` is the model's."""

    def __init__(
        self, superblock: SuperBlock, inodes: HugeInodes, mode: int, uid: int, gid: int
    ) -> None:
        super().__init__(superblock, mode, uid, gid)
        self._inodes = inodes
        self.inode = inodes.new(self.mode)
        if self.inode < 0:
            fail(-self.inode)

    @property
    def size(self) -> int:
        return self._inodes.size(self.inode)

    def open(self, flags: int) -> HugeOpenFile:
        return HugeOpenFile(self, flags)

    def open_for_mapping(self, name: str, mode: int) -> int:
        """A ``struct file *`` of the model, with a reference; 0: no memory."""
        return self._inodes.open(self.inode, name, mode)

    def truncate(self, size: int) -> None:
        if error := self._inodes.truncate(self.inode, size):
            fail(-error)
        self.modified()

    def evict(self) -> None:
        self._inodes.release(self.inode)


class HugeSuperBlock(SuperBlock):
    """A mount of hugetlbfs."""

    def __init__(
        self, device: int, quota: Quota, now: Callable[[], int], inodes: HugeInodes
    ) -> None:
        super().__init__(device, HUGETLBFS_MAGIC, quota, now)
        self._inodes = inodes

    def new_file(self, mode: int, uid: int, gid: int) -> Inode:
        return HugeFile(self, self._inodes, mode, uid, gid)
