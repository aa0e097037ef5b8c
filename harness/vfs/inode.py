# SPDX-License-Identifier: GPL-2.0-or-later
"""What every file has in common: the inode, and the file system it belongs to.

Models ``struct inode`` and ``struct super_block`` of linux-2.4.22 ``include/linux/fs.h``. An inode
is counted twice, as there: ``nlink`` names lead to it, ``users`` (``i_count``) hold it open. Its
content goes when both are 0. Times are nanoseconds since 1970.
"""

import errno
import stat
from collections.abc import Callable, Hashable
from typing import TYPE_CHECKING, Final

from harness.vfs.failure import fail
from harness.vfs.locks import FileLocks
from harness.vfs.quota import Quota

if TYPE_CHECKING:
    from harness.vfs.open_file import OpenFile

LINK_MAX: Final = 32000
"""``EXT2_LINK_MAX``."""
NAME_MAX: Final = 255

TMPFS_MAGIC: Final = 0x01021994
PROC_MAGIC: Final = 0x9FA0
PIPEFS_MAGIC: Final = 0x50495045


class SuperBlock:
    """One file system: ``device`` is the number that ``st_dev`` shows."""

    def __init__(self, device: int, magic: int, quota: Quota, now: Callable[[], int]) -> None:
        self.device = device
        self.magic = magic
        self.quota = quota
        self.now = now
        self._last_number = 1

    def new_number(self) -> int:
        """An inode number that none had before."""
        self._last_number += 1
        return self._last_number

    def new_file(self, mode: int, uid: int, gid: int) -> "Inode":
        """An empty regular file."""
        from harness.vfs.regular import RegularFile

        return RegularFile(self, mode, uid, gid)

    def changed(self, inode: "Inode") -> None:
        """``inode`` differs from now on from what it was when first seen."""

    def gone(self, inode: "Inode") -> None:
        """No name leads to ``inode`` any more, and nobody holds it."""


class Inode:
    """A file of any kind; ``mode`` holds the kind and the permissions."""

    seekable = False
    wakeups = 0
    """How often something happened that who polls an open file of it might wait for."""

    def __init__(self, superblock: SuperBlock, mode: int, uid: int = 0, gid: int = 0) -> None:
        self.superblock = superblock
        self.number = superblock.new_number()
        self.mode = mode
        self.uid = uid
        self.gid = gid
        self.nlink = 1
        self.rdev = 0
        self.users = 0
        self.charges = 0
        """How many inodes the quota counts for it: one for each name that was made here."""
        self.atime = self.mtime = self.ctime = superblock.now()
        self._locks: FileLocks | None = None

    @property
    def locks(self) -> FileLocks:
        """The locks on it; most files never have any."""
        if self._locks is None:
            self._locks = FileLocks()
        return self._locks

    def drop_locks(self, holder: Hashable) -> None:
        """Those of a table of descriptors, or of an open file description, that closed it."""
        if self._locks is not None:
            self._locks.drop_ranges(holder)
            self._locks.drop_whole(holder)

    @property
    def kind(self) -> int:
        """``S_IFREG``, ``S_IFDIR``, ..."""
        return stat.S_IFMT(self.mode)

    @property
    def size(self) -> int:
        return 0

    @property
    def blocks(self) -> int:
        """Sectors of 512 bytes that it takes."""
        return 0

    def open(self, flags: int) -> "OpenFile":
        """A new open file description; the caller has checked what it may."""
        del flags
        fail(errno.ENXIO)

    # -- changes -----------------------------------------------------------------------------

    def accessed(self) -> None:
        self.atime = self.superblock.now()

    def modified(self) -> None:
        """The content has changed."""
        self.mtime = self.ctime = self.superblock.now()
        self.superblock.changed(self)

    def changed(self) -> None:
        """What describes it has changed."""
        self.ctime = self.superblock.now()
        self.superblock.changed(self)

    def set_mode(self, permissions: int) -> None:
        self.mode = self.kind | permissions & 0o7777
        self.changed()

    def set_owner(self, uid: int, gid: int) -> None:
        """-1 leaves one as it is. Files lose what ran them as their owner."""
        if uid != -1:
            self.uid = uid
        if gid != -1:
            self.gid = gid
        if self.kind != stat.S_IFDIR:
            self.drop_privileges()
        self.changed()

    def drop_privileges(self) -> None:
        """Whoever runs it from now on does so as himself (``remove_suid``)."""
        self.mode &= ~stat.S_ISUID
        if self.mode & stat.S_IXGRP:
            self.mode &= ~stat.S_ISGID

    def set_times(self, atime: int | None, mtime: int | None) -> None:
        if atime is not None:
            self.atime = atime
        if mtime is not None:
            self.mtime = mtime
        self.changed()

    # -- counts ------------------------------------------------------------------------------

    def get(self) -> None:
        """One more holds it open."""
        self.users += 1

    def put(self) -> None:
        """One less holds it open."""
        assert self.users > 0
        self.users -= 1
        self._evict_if_unused()

    def link_added(self) -> None:
        self.nlink += 1
        self.changed()

    def link_removed(self) -> None:
        self.nlink = max(0, self.nlink - 1)
        self.changed()
        if self.charges > max(1, self.nlink):
            self.charges -= 1
            self.superblock.quota.give_inodes(1)
        self._evict_if_unused()

    def _evict_if_unused(self) -> None:
        if self.nlink == 0 and self.users == 0:
            self.evict()
            self.superblock.gone(self)
            self.superblock.quota.give_inodes(self.charges)
            self.charges = 0

    def evict(self) -> None:
        """Give back what it took: nobody can reach it any more."""


class Symlink(Inode):
    """A symbolic link to the path ``text``."""

    def __init__(self, superblock: SuperBlock, text: bytes, uid: int = 0, gid: int = 0) -> None:
        super().__init__(superblock, stat.S_IFLNK | 0o777, uid, gid)
        self._text = text

    @property
    def size(self) -> int:
        return len(self._text)

    def text(self) -> bytes:
        return self._text

    def target(self) -> "Inode | None":
        """Where it leads without a path, as the links in ``/proc/PID/fd`` do; else ``None``."""
        return None


class SpecialFile(Inode):
    """A device or socket of the host: it can be seen, never opened."""
