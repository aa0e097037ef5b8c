# SPDX-License-Identifier: GPL-2.0-or-later
"""Who a process is, and what it may.

Models linux-2.4.22 ``kernel/sys.c`` for the IDs and ``fs/namei.c: vfs_permission`` for files. User
0 has every capability, and a process that is not 0 any more has none.
"""

import errno
import stat
from dataclasses import dataclass, field, replace
from typing import Final

from harness.vfs.failure import fail
from harness.vfs.inode import Inode

MAY_EXEC: Final = 1
MAY_WRITE: Final = 2
MAY_READ: Final = 4


@dataclass(slots=True)
class Credentials:
    """Real, effective, saved and file-system IDs, and the further groups."""

    uid: int = 0
    euid: int = 0
    suid: int = 0
    fsuid: int = 0
    gid: int = 0
    egid: int = 0
    sgid: int = 0
    fsgid: int = 0
    groups: list[int] = field(default_factory=list)

    def copy(self) -> "Credentials":
        """For a child."""
        return replace(self, groups=list(self.groups))

    def real(self) -> "Credentials":
        """As ``access()`` asks: with the real IDs."""
        return replace(self, fsuid=self.uid, fsgid=self.gid)

    @property
    def privileged(self) -> bool:
        return self.euid == 0

    def in_group(self, gid: int) -> bool:
        return gid == self.fsgid or gid in self.groups

    def owns(self, inode: Inode) -> bool:
        """Whether it may change what describes the file."""
        return self.fsuid in (0, inode.uid)

    def check(self, inode: Inode, wanted: int) -> None:
        """``EACCES`` unless ``wanted`` (``MAY_*``) is allowed."""
        if self.fsuid == 0:
            executable = inode.mode & 0o111 or stat.S_ISDIR(inode.mode)
            if wanted & MAY_EXEC and not executable:
                fail(errno.EACCES)
            return
        mode = inode.mode
        if self.fsuid == inode.uid:
            mode >>= 6
        elif self.in_group(inode.gid):
            mode >>= 3
        if wanted & ~mode & 7:
            fail(errno.EACCES)

    def check_removal(self, directory: Inode, victim: Inode) -> None:
        """``EPERM`` where the sticky bit keeps others' files (``may_delete``)."""
        self.check(directory, MAY_WRITE | MAY_EXEC)
        sticky = directory.mode & stat.S_ISVTX
        if sticky and self.fsuid not in (0, victim.uid, directory.uid):
            fail(errno.EPERM)
