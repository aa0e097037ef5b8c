# SPDX-License-Identifier: GPL-2.0-or-later
"""Open file descriptions: what ``open()`` makes, and ``dup()`` and ``fork()`` share.

Models ``struct file`` of linux-2.4.22 ``include/linux/fs.h``, and of its operations those of
regular files and directories. ``count`` is ``f_count``: every descriptor holds one, and so does
every mapping. A read or write that would have to wait raises ``BlockingIOError``; whoever called
decides whether to wait.
"""

import errno
from typing import Final

from harness.vfs.directory import Directory
from harness.vfs.failure import fail
from harness.vfs.flags import (
    MAX_NON_LFS,
    O_ACCMODE,
    O_APPEND,
    O_LARGEFILE,
    O_NONBLOCK,
    O_PATH,
    O_RDONLY,
    O_RDWR,
    O_WRONLY,
    POLLERR,
    POLLOUT,
    READABLE,
    SEEK_CUR,
    SEEK_END,
    SEEK_SET,
    WRITABLE,
)
from harness.vfs.inode import Inode
from harness.vfs.regular import MAX_FILE_SIZE, RegularFile


class OpenFile:
    """The base: a file that can be neither read nor written."""

    pollable = True
    """Whether it can be waited for by ``epoll``; others are always ready."""

    def __init__(self, inode: Inode, flags: int) -> None:
        inode.superblock.quota.take_file()
        inode.get()
        self.inode: Inode = inode
        self.flags = flags
        self.position = 0
        self.count = 1
        self.where: tuple[Directory, bytes] | None = None
        """Directory and name it was opened by, for ``/proc/PID/fd``."""
        self.label = b""
        """What stands there for a file without a name."""

    def get(self) -> "OpenFile":
        self.count += 1
        return self

    def put(self) -> None:
        """One holder less; the last one closes it."""
        assert self.count > 0
        self.count -= 1
        if self.count == 0:
            self.released()
            self.inode.drop_locks(self)
            self.inode.superblock.quota.give_file()
            self.inode.put()

    def released(self) -> None:
        """The last holder has closed it."""

    # -- what it may -------------------------------------------------------------------------

    @property
    def may_read(self) -> bool:
        return not self.flags & O_PATH and self.flags & O_ACCMODE in (O_RDONLY, O_RDWR)

    @property
    def may_write(self) -> bool:
        return not self.flags & O_PATH and self.flags & O_ACCMODE in (O_WRONLY, O_RDWR)

    @property
    def nonblocking(self) -> bool:
        return bool(self.flags & O_NONBLOCK)

    @property
    def seekable(self) -> bool:
        return self.inode.seekable

    # -- bytes -------------------------------------------------------------------------------

    def read(self, count: int) -> bytes:
        """Up to ``count`` bytes at the position, which moves; b"" at the end."""
        del count
        fail(errno.EINVAL)

    def unread(self, data: bytes) -> None:
        """Take back the end of what :meth:`read` just gave: it could not be delivered."""
        self.position -= len(data)

    def write(self, data: bytes) -> int:
        """Write at the position, which moves; how many bytes were taken."""
        del data
        fail(errno.EINVAL)

    def read_at(self, position: int, count: int) -> bytes:
        del position, count
        fail(errno.ESPIPE)

    def write_at(self, position: int, data: bytes) -> int:
        del position, data
        fail(errno.ESPIPE)

    def seek(self, offset: int, whence: int) -> int:
        del offset, whence
        fail(errno.ESPIPE)

    # -- readiness ---------------------------------------------------------------------------

    def poll(self) -> int:
        """Which of ``POLLIN``, ``POLLOUT``, ``POLLHUP``, ... hold now."""
        return READABLE | WRITABLE

    @property
    def wakeups(self) -> int:
        """A number that changes when something happens that :meth:`poll` may tell of."""
        return self.inode.wakeups

    def can_write(self, data: bytes) -> bool:
        """Whether writing them would not wait."""
        del data
        return bool(self.poll() & (POLLOUT | POLLERR))

    def available(self) -> int:
        """Bytes that a read would give at once (``FIONREAD``)."""
        fail(errno.ENOTTY)

    @property
    def host_descriptor(self) -> int | None:
        """The descriptor of the host whose readiness decides :meth:`poll`."""
        return None


def sought(file: OpenFile, offset: int, whence: int, end: int, maximum: int) -> int:
    """The position that ``lseek()`` asks for."""
    bases: Final = {SEEK_SET: 0, SEEK_CUR: file.position, SEEK_END: end}
    if whence not in bases:
        fail(errno.EINVAL)
    position = bases[whence] + offset
    if not 0 <= position <= maximum:
        fail(errno.EINVAL)
    file.position = position
    return position


class RegularOpenFile(OpenFile):
    """A regular file, at a position."""

    pollable = False
    inode: RegularFile

    def read(self, count: int) -> bytes:
        data = self.read_at(self.position, count)
        self.position += len(data)
        return data

    def write(self, data: bytes) -> int:
        if self.flags & O_APPEND:
            self.position = self.inode.size
        done = self.write_at(self.position, data)
        self.position += done
        return done

    def read_at(self, position: int, count: int) -> bytes:
        data = self.inode.read_at(position, count)
        if data:
            self.inode.accessed()
        return data

    def write_at(self, position: int, data: bytes) -> int:
        """``pwrite()`` appends, too, in a file opened to append: Linux's way."""
        if self.flags & O_APPEND:
            position = self.inode.size
        if not self.flags & O_LARGEFILE:
            if position >= MAX_NON_LFS and data:
                fail(errno.EFBIG)
            data = data[: MAX_NON_LFS - position]
        return self.inode.write_at(position, data) if data else 0

    def seek(self, offset: int, whence: int) -> int:
        return sought(self, offset, whence, self.inode.size, MAX_FILE_SIZE)

    def available(self) -> int:
        return max(0, self.inode.size - self.position)


class DirectoryOpenFile(OpenFile):
    """A directory being read: its names as they were when reading began.

    Position 0 is ``.``, 1 is ``..``, and 2 the first name. Names removed meanwhile are left out.
    """

    pollable = False
    inode: Directory

    def __init__(self, inode: Directory, flags: int) -> None:
        super().__init__(inode, flags)
        self._names: list[bytes] | None = None

    def read(self, count: int) -> bytes:
        del count
        fail(errno.EISDIR)

    def read_at(self, position: int, count: int) -> bytes:
        del position, count
        fail(errno.EISDIR)

    def seek(self, offset: int, whence: int) -> int:
        position = sought(self, offset, whence, 0, 0x7FFFFFFF)
        if position == 0:
            self._names = None
        return position

    def entry(self) -> tuple[bytes, Inode] | None:
        """The name at the position and its inode; the position moves. ``None`` at the end."""
        if self.inode.removed:
            return None
        if self._names is None:
            self._names = self.inode.names()
            self.inode.accessed()
        while True:
            at = self.position
            if at >= len(self._names) + 2:
                return None
            self.position += 1
            if at < 2:
                return (b".", self.inode) if at == 0 else (b"..", self.inode.parent)
            name = self._names[at - 2]
            inode = self.inode.lookup(name)
            if inode is not None:
                return name, inode
