# SPDX-License-Identifier: GPL-2.0-or-later
"""A file system whose first content is a folder of the host.

Inodes are made when a name is first looked up, from what the host says then. One that differs from
the host's since is kept for as long as a name leads to it; the others only while somebody holds
them, so that a walk over a large folder leaves nothing behind. A FIFO is one among our programs:
the host's is not touched. Files with several names on the host are one inode here, too. Inode
numbers are ours: a number of the host could be one that we gave.

What can fail: what :mod:`harness.vfs.host` fails with.
"""

import errno
import os
import stat
from collections.abc import Callable, Hashable
from functools import partial
from typing import Final
from weakref import WeakValueDictionary

from harness.vfs.directory import Directory
from harness.vfs.host import HostFolder, Names
from harness.vfs.inode import TMPFS_MAGIC, Inode, SpecialFile, SuperBlock, Symlink
from harness.vfs.pipe import Pipe
from harness.vfs.quota import Quota
from harness.vfs.regular import RegularFile

_ABSENT: Final = {errno.ENOENT, errno.ENOTDIR, errno.ELOOP}


def device_number(major: int, minor: int) -> int:
    """``new_encode_dev()``."""
    return minor & 0xFF | major << 8 | (minor & ~0xFF) << 12


class HostSymlink(Symlink):
    """A link of the host: its text is read each time, and leads wherever *our* tree says."""

    def __init__(self, superblock: SuperBlock, folder: HostFolder, names: Names, size: int) -> None:
        super().__init__(superblock, b"")
        self._read = partial(folder.link_text, names)
        self._host_size = size

    @property
    def size(self) -> int:
        return self._host_size

    def text(self) -> bytes:
        return self._read()


class HostDirectory:
    """What the folder's directory at ``names`` holds."""

    def __init__(self, tree: "HostTree", names: Names) -> None:
        self._tree = tree
        self._names = names

    def lookup(self, directory: Directory, name: bytes) -> Inode | None:
        return self._tree.inode((*self._names, name), directory)

    def has(self, name: bytes) -> bool:
        return self._tree.status((*self._names, name)) is not None

    def names(self) -> list[bytes]:
        return self._tree.folder.names(self._names)


class HostTree(SuperBlock):
    """The file system over ``folder``; its root is :attr:`root`."""

    def __init__(
        self, device: int, quota: Quota, now: Callable[[], int], folder: HostFolder
    ) -> None:
        super().__init__(device, TMPFS_MAGIC, quota, now)
        self.folder = folder
        self._numbers: dict[tuple[int, int], int] = {}
        self._inodes: WeakValueDictionary[Hashable, Inode] = WeakValueDictionary()
        self._changed: dict[int, Inode] = {}
        root = self.inode(())
        assert isinstance(root, Directory)
        self.root: Final = root

    def changed(self, inode: Inode) -> None:
        self._changed[inode.number] = inode

    def gone(self, inode: Inode) -> None:
        self._changed.pop(inode.number, None)

    def status(self, names: Names) -> os.stat_result | None:
        """What the host says of ``names``; ``None`` when it has nothing there."""
        try:
            return self.folder.status(names)
        except OSError as error:
            if error.errno in _ABSENT:
                return None
            raise

    def inode(self, names: Names, parent: Directory | None = None) -> Inode | None:
        """The inode of what the host has at ``names``, which ``parent`` shows."""
        status = self.status(names)
        if status is None:
            return None
        identity = (status.st_dev, status.st_ino)
        shared = status.st_nlink > 1 and not stat.S_ISDIR(status.st_mode)
        key: Hashable = identity if shared else names
        inode = self._inodes.get(key)
        if inode is None or inode.kind != stat.S_IFMT(status.st_mode):
            inode = self._new(names, status)
            inode.number = self._numbers.setdefault(identity, inode.number)
            self._inodes[key] = inode
            # Only a new one hangs here: one that is known may have been renamed meanwhile.
            if isinstance(inode, Directory) and parent is not None:
                inode.parent, inode.name = parent, names[-1]
        return inode

    def _new(self, names: Names, status: os.stat_result) -> Inode:
        inode: Inode
        if stat.S_ISDIR(status.st_mode):
            inode = Directory(self, lower=HostDirectory(self, names))
        elif stat.S_ISREG(status.st_mode):
            identity = (status.st_dev, status.st_ino)
            read = partial(self.folder.read, names, identity)
            inode = RegularFile(self, 0, lower=read, lower_size=status.st_size)
        elif stat.S_ISLNK(status.st_mode):
            inode = HostSymlink(self, self.folder, names, status.st_size)
        elif stat.S_ISFIFO(status.st_mode):
            inode = Pipe(self)
        else:
            inode = SpecialFile(self, status.st_mode)
            inode.rdev = device_number(os.major(status.st_rdev), os.minor(status.st_rdev))
        inode.mode, inode.nlink = status.st_mode, status.st_nlink
        inode.uid, inode.gid = status.st_uid, status.st_gid
        inode.atime, inode.mtime = status.st_atime_ns, status.st_mtime_ns
        inode.ctime = status.st_ctime_ns
        return inode
