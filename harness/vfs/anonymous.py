# SPDX-License-Identifier: GPL-2.0-or-later
"""Files that no path leads to, each made by a system call of its own kind.

Models linux-6 ``fs/anon_inodes.c``. What can fail: ``ENFILE``.
"""

from harness.vfs.flags import O_RDWR
from harness.vfs.inode import Inode, SuperBlock
from harness.vfs.open_file import OpenFile


class AnonymousFile(OpenFile):
    """The base; ``kind`` is what ``/proc/PID/fd`` shows of it."""

    kind = b""

    def __init__(self, superblock: SuperBlock, flags: int) -> None:
        super().__init__(Inode(superblock, 0o600), O_RDWR | flags)
        self.label = b"anon_inode:[%s]" % self.kind
