# SPDX-License-Identifier: GPL-2.0-or-later
"""A counter that is read and written as eight bytes.

Models linux-6 ``fs/eventfd.c``. What can fail: ``EINVAL`` for any other number of bytes, or for
the one value that never counts; ``EAGAIN`` (``BlockingIOError``) at 0, and where the sum is too
large.
"""

import errno
from typing import Final

from harness.vfs.anonymous import AnonymousFile
from harness.vfs.failure import fail
from harness.vfs.flags import POLLIN, POLLOUT
from harness.vfs.inode import SuperBlock

VALUE_BYTES: Final = 8
_NEVER: Final = 0xFFFFFFFFFFFFFFFF
_HIGHEST: Final = _NEVER - 1


class EventFile(AnonymousFile):
    """The counter; of a semaphore each read takes 1, of others all."""

    kind = b"eventfd"

    def __init__(
        self, superblock: SuperBlock, flags: int, counter: int, *, semaphore: bool
    ) -> None:
        super().__init__(superblock, flags)
        self._counter = counter
        self._semaphore = semaphore

    def read(self, count: int) -> bytes:
        if count < VALUE_BYTES:
            fail(errno.EINVAL)
        if not self._counter:
            fail(errno.EAGAIN)
        value = 1 if self._semaphore else self._counter
        self._counter -= value
        self.inode.wakeups += 1
        return value.to_bytes(VALUE_BYTES, "little")

    def unread(self, data: bytes) -> None:
        """What could not be delivered is gone, as on Linux."""

    def write(self, data: bytes) -> int:
        value = int.from_bytes(data, "little")
        if len(data) != VALUE_BYTES or value == _NEVER:
            fail(errno.EINVAL)
        if not self.can_write(data):
            fail(errno.EAGAIN)
        self._counter += value
        self.inode.wakeups += 1
        return VALUE_BYTES

    def can_write(self, data: bytes) -> bool:
        return self._counter + int.from_bytes(data, "little") <= _HIGHEST

    def poll(self) -> int:
        readable = POLLIN if self._counter else 0
        return readable | (POLLOUT if self._counter < _HIGHEST else 0)
