# SPDX-License-Identifier: GPL-2.0-or-later
"""Standard input, output and error: passed through to the host, as ends of pipes.

There is no terminal, whatever the host has there: a program sees a FIFO. The host's input is read
lazily, and only when it has something: the machine never waits in it.
"""

import errno
import os
import select
import stat
from collections.abc import Callable
from typing import Final

from harness.vfs.failure import fail
from harness.vfs.flags import O_RDONLY, O_WRONLY, READABLE, WRITABLE
from harness.vfs.inode import Inode, SuperBlock
from harness.vfs.open_file import OpenFile

_READ_AT_ONCE: Final = 1 << 16


class Stream(Inode):
    """What the three are; opening one again, by ``/dev/stdin``, shares all but the flags."""

    def __init__(self, superblock: SuperBlock) -> None:
        super().__init__(superblock, stat.S_IFIFO | 0o600)
        self.label = b"pipe:[%d]" % self.number


class InputStream(Stream):
    """Bytes that a program reads: ``data`` first, then what host descriptor ``host`` gives."""

    def __init__(self, superblock: SuperBlock, data: bytes = b"", host: int | None = None) -> None:
        super().__init__(superblock)
        self.pending = bytearray(data)
        self.host = host

    def open(self, flags: int = O_RDONLY) -> "InputFile":
        return InputFile(self, flags)

    def ready(self) -> bool:
        """Whether a read would not wait; at the end it would not."""
        if self.pending or self.host is None:
            return True
        try:
            return bool(select.select([self.host], [], [], 0)[0])
        except (OSError, ValueError):
            self.host = None
            return True

    def take(self, count: int) -> bytes:
        if not self.pending and self.host is not None and self.ready():
            self.pending += self._from_host()
        data = bytes(self.pending[:count])
        del self.pending[:count]
        return data

    def _from_host(self) -> bytes:
        """What the host has; its end, or a descriptor that is none, is the end of the input."""
        assert self.host is not None
        try:
            data = os.read(self.host, _READ_AT_ONCE)
        except BlockingIOError:
            fail(errno.EAGAIN)
        except OSError:
            data = b""
        if not data:
            self.host = None
        return data


class InputFile(OpenFile):
    """The end that reads."""

    inode: InputStream

    def __init__(self, inode: InputStream, flags: int) -> None:
        super().__init__(inode, flags)
        self.label = inode.label

    def read(self, count: int) -> bytes:
        if not count:
            return b""
        if not self.inode.ready():
            fail(errno.EAGAIN)
        return self.inode.take(count)

    def unread(self, data: bytes) -> None:
        self.inode.pending[:0] = data

    def poll(self) -> int:
        return READABLE if self.inode.ready() else 0

    def available(self) -> int:
        return len(self.inode.pending)

    @property
    def host_descriptor(self) -> int | None:
        return None if self.inode.pending else self.inode.host


class OutputStream(Stream):
    """Bytes that a program writes, handed to ``sink``."""

    def __init__(self, superblock: SuperBlock, sink: Callable[[bytes], None]) -> None:
        super().__init__(superblock)
        self.sink = sink

    def open(self, flags: int = O_WRONLY) -> "OutputFile":
        return OutputFile(self, flags)


class OutputFile(OpenFile):
    """The end that writes."""

    inode: OutputStream

    def __init__(self, inode: OutputStream, flags: int) -> None:
        super().__init__(inode, flags)
        self.label = inode.label

    def write(self, data: bytes) -> int:
        self.inode.sink(data)
        return len(data)

    def poll(self) -> int:
        return WRITABLE
