# SPDX-License-Identifier: GPL-2.0-or-later
"""Pipes and FIFOs: bytes in the order they were written.

Models linux-2.4.22 ``fs/pipe.c`` with the capacity that later kernels gave it. At most
:data:`PIPE_BUF` bytes are written as a whole or not at all; more may go in parts. What can fail:
``EPIPE`` when nobody reads; ``EAGAIN`` (``BlockingIOError``) when there is nothing to read yet, or
no room.
"""

import errno
import stat
from typing import Final

from harness.vfs.failure import fail
from harness.vfs.flags import (
    O_ACCMODE,
    O_NONBLOCK,
    O_RDONLY,
    O_RDWR,
    O_WRONLY,
    POLLERR,
    POLLHUP,
    READABLE,
    WRITABLE,
)
from harness.vfs.inode import PIPEFS_MAGIC, Inode, SuperBlock
from harness.vfs.open_file import OpenFile

PIPE_BUF: Final = 4096
PIPE_SIZE: Final = 16 * 4096


class Pipe(Inode):
    """A pipe, or a FIFO with a name; without holders it holds nothing."""

    def __init__(
        self, superblock: SuperBlock, mode: int = 0o600, uid: int = 0, gid: int = 0
    ) -> None:
        super().__init__(superblock, stat.S_IFIFO | mode & 0o7777, uid, gid)
        self.bytes = bytearray()
        self.readers = 0
        self.writers = 0
        self.opened_by_readers = 0
        self.opened_by_writers = 0
        """How often each end was opened: who waits for the other end may miss it closing again."""
        self.named = superblock.magic != PIPEFS_MAGIC
        """Who opens a FIFO by its name waits for the other end; by ``/proc/PID/fd`` nobody does."""

    @property
    def room(self) -> int:
        return PIPE_SIZE - len(self.bytes)

    def open(self, flags: int) -> "PipeEnd":
        """Open one end; a FIFO's opener then waits for the other: see :meth:`PipeEnd.met`."""
        if flags & O_ACCMODE == O_ACCMODE:
            fail(errno.EINVAL)
        nonblocking_writer = flags & O_ACCMODE == O_WRONLY and flags & O_NONBLOCK
        if self.named and nonblocking_writer and not self.readers:
            fail(errno.ENXIO)
        return PipeEnd(self, flags)


class PipeEnd(OpenFile):
    """The end of a pipe that reads, or writes, or (a FIFO's) both."""

    inode: Pipe

    def __init__(self, inode: Pipe, flags: int) -> None:
        super().__init__(inode, flags)
        self._readers_before = inode.opened_by_readers
        self._writers_before = inode.opened_by_writers
        if self.may_read:
            inode.readers += 1
            inode.opened_by_readers += 1
        if self.may_write:
            inode.writers += 1
            inode.opened_by_writers += 1

    def met(self) -> bool:
        """Whether the other end is, or was meanwhile, open: ``open()`` of a FIFO waits for it."""
        pipe, mode = self.inode, self.flags & O_ACCMODE
        if not pipe.named or mode == O_RDWR or (mode == O_RDONLY and self.nonblocking):
            return True
        if mode == O_RDONLY:
            return pipe.writers > 0 or pipe.opened_by_writers != self._writers_before
        return pipe.readers > 0 or pipe.opened_by_readers != self._readers_before

    def released(self) -> None:
        pipe = self.inode
        pipe.wakeups += 1
        pipe.readers -= self.may_read
        pipe.writers -= self.may_write
        if not pipe.readers and not pipe.writers:
            pipe.bytes.clear()

    def read(self, count: int) -> bytes:
        pipe = self.inode
        if not pipe.bytes:
            if count and pipe.writers:
                fail(errno.EAGAIN)
            return b""
        data = bytes(pipe.bytes[:count])
        del pipe.bytes[:count]
        pipe.wakeups += 1
        return data

    def unread(self, data: bytes) -> None:
        self.inode.bytes[:0] = data

    def write(self, data: bytes) -> int:
        pipe = self.inode
        if not data:
            return 0
        if not pipe.readers:
            fail(errno.EPIPE)
        if not self.can_write(data):
            fail(errno.EAGAIN)
        part = data[: pipe.room]
        pipe.bytes += part
        pipe.wakeups += 1
        return len(part)

    def can_write(self, data: bytes) -> bool:
        needed = len(data) if len(data) <= PIPE_BUF else 1
        return self.inode.room >= needed or not self.inode.readers

    def poll(self) -> int:
        pipe, mask = self.inode, 0
        if self.may_read:
            mask |= READABLE if pipe.bytes else 0
            mask |= POLLHUP if not pipe.writers else 0
        if self.may_write:
            mask |= WRITABLE if pipe.room >= PIPE_BUF else 0
            mask |= POLLERR if not pipe.readers else 0
        return mask

    def available(self) -> int:
        return len(self.inode.bytes)


def new_pipe(superblock: SuperBlock, flags: int, uid: int, gid: int) -> tuple[PipeEnd, PipeEnd]:
    """``pipe()``: the end to read from, and the end to write to."""
    inode = Pipe(superblock, 0o600, uid, gid)
    inode.nlink = 0
    label = b"pipe:[%d]" % inode.number
    reader = PipeEnd(inode, O_RDONLY | flags)
    try:
        writer = PipeEnd(inode, O_WRONLY | flags)
    except OSError:
        reader.put()
        raise
    reader.label = writer.label = label
    return reader, writer
