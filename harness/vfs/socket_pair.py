# SPDX-License-Identifier: GPL-2.0-or-later
"""Two sockets connected with each other: a stream of bytes each way.

Models linux-6 ``net/unix/af_unix.c`` as far as ``socketpair(AF_UNIX, SOCK_STREAM)`` needs it. What
can fail: ``EPIPE`` when the other end will not read; ``ECONNRESET`` once, when it was closed with
bytes that it had not read; ``EAGAIN`` (``BlockingIOError``); ``ENOBUFS`` when all sockets together
hold too much.
"""

import errno
import stat
from typing import Final

from harness.vfs.failure import fail
from harness.vfs.flags import O_RDWR, POLLERR, POLLHUP, POLLWRBAND, READABLE, WRITABLE
from harness.vfs.inode import Inode, SuperBlock
from harness.vfs.open_file import OpenFile
from harness.vfs.quota import Quota

POLLRDHUP: Final = 0x2000
RCV_SHUTDOWN: Final = 1
SEND_SHUTDOWN: Final = 2
BUFFER_BYTES: Final = 212_992
"""``net.core.wmem_default``; here of bytes alone."""


class Socket(OpenFile):
    """One end."""

    def __init__(self, superblock: SuperBlock, flags: int) -> None:
        super().__init__(Inode(superblock, stat.S_IFSOCK | 0o777), O_RDWR | flags)
        self.label = b"socket:[%d]" % self.inode.number
        self.peer: Socket | None = None
        self._incoming = bytearray()
        self._shutdown = 0
        self._reset = False

    # -- the end of it -----------------------------------------------------------------------

    def shutdown(self, ways: int) -> None:
        """``ways``: :data:`RCV_SHUTDOWN`, :data:`SEND_SHUTDOWN` or both; the peer is told."""
        self._shut(ways)
        if self.peer is not None:
            other = RCV_SHUTDOWN if ways & SEND_SHUTDOWN else 0
            self.peer._shut(other | (SEND_SHUTDOWN if ways & RCV_SHUTDOWN else 0))

    def _shut(self, ways: int) -> None:
        self._shutdown |= ways
        self.inode.wakeups += 1

    def released(self) -> None:
        if self.peer is not None:
            self.peer._reset = bool(self._incoming)
            self.shutdown(RCV_SHUTDOWN | SEND_SHUTDOWN)
            self.peer.peer = None
        self._quota.give_buffers(len(self._incoming))
        self._incoming.clear()

    @property
    def _quota(self) -> Quota:
        return self.inode.superblock.quota

    # -- bytes -------------------------------------------------------------------------------

    def read(self, count: int) -> bytes:
        data = self.peek(count)
        del self._incoming[: len(data)]
        self._quota.give_buffers(len(data))
        if data and self.peer is not None:
            self.peer.inode.wakeups += 1
        return data

    def peek(self, count: int) -> bytes:
        """As :meth:`read`, but the bytes stay."""
        if not self._incoming:
            if self._reset:
                self._reset = False
                fail(errno.ECONNRESET)
            if count and not self._shutdown & RCV_SHUTDOWN:
                fail(errno.EAGAIN)
        return bytes(self._incoming[:count])

    def unread(self, data: bytes) -> None:
        # They had room until now, and keep it whoever came meanwhile.
        self._quota.buffered += len(data)
        self._incoming[:0] = data

    def write(self, data: bytes) -> int:
        if self.peer is None or self._shutdown & SEND_SHUTDOWN:
            fail(errno.EPIPE)
        room = BUFFER_BYTES - len(self.peer._incoming)
        if not room:
            fail(errno.EAGAIN)
        self._quota.take_buffers(len(data[:room]))
        self.peer._incoming += data[:room]
        self.peer.inode.wakeups += 1
        return len(data[:room])

    def can_write(self, data: bytes) -> bool:
        closed = self.peer is None or self._shutdown & SEND_SHUTDOWN
        return bool(closed) or self._has_room

    @property
    def _has_room(self) -> bool:
        return self.peer is None or len(self.peer._incoming) < BUFFER_BYTES

    def poll(self) -> int:
        mask = POLLERR if self._reset else 0
        if self._incoming or self._shutdown & RCV_SHUTDOWN:
            mask |= READABLE
        if self._shutdown & RCV_SHUTDOWN:
            mask |= POLLRDHUP
        if self._shutdown == RCV_SHUTDOWN | SEND_SHUTDOWN:
            mask |= POLLHUP
        return mask | (WRITABLE | POLLWRBAND if self._has_room else 0)

    def available(self) -> int:
        return len(self._incoming)


def new_pair(superblock: SuperBlock, flags: int) -> tuple[Socket, Socket]:
    """``socketpair()``."""
    first = Socket(superblock, flags)
    try:
        second = Socket(superblock, flags)
    except OSError:
        first.put()
        raise
    first.peer, second.peer = second, first
    return first, second
