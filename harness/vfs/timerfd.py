# SPDX-License-Identifier: GPL-2.0-or-later
"""A timer that is read: how often it went off since it was read last.

Models linux-6 ``fs/timerfd.c``. Times are nanoseconds of the machine's monotonic clock. What can
fail: ``EINVAL`` for a read of less than eight bytes; ``EAGAIN`` (``BlockingIOError``) before its
time.
"""

import errno
from collections.abc import Callable
from typing import Final

from harness.vfs.anonymous import AnonymousFile
from harness.vfs.failure import fail
from harness.vfs.flags import POLLIN
from harness.vfs.inode import SuperBlock

COUNT_BYTES: Final = 8
_U64: Final = (1 << 64) - 1


class TimerFile(AnonymousFile):
    """The timer: it goes off at :attr:`expiry`, and every ``interval`` after that."""

    kind = b"timerfd"

    def __init__(
        self, superblock: SuperBlock, flags: int, clock: int, now: Callable[[], int]
    ) -> None:
        super().__init__(superblock, flags)
        self.clock = clock
        """By which absolute times are meant (``CLOCK_*``)."""
        self._now = now
        self._expiry: int | None = None
        self._interval = 0
        self._read = 0
        self._earlier = 0
        """How often it went off before it was armed last, and how often it was armed."""

    def set(self, expiry: int | None, interval: int) -> None:
        """Arm it anew; ``None``: disarm it."""
        self._earlier = self.wakeups + 1
        self._expiry, self._interval, self._read = expiry, interval, 0

    def left(self) -> tuple[int, int]:
        """How long until it goes off next, 0 if never; and its interval."""
        now, expiry = self._now(), self._expiry
        if expiry is None:
            return 0, self._interval
        if now >= expiry:
            if not self._interval:
                return 0, 0
            expiry += ((now - expiry) // self._interval + 1) * self._interval
        return expiry - now, self._interval

    def next_event(self) -> int | None:
        """When it will become readable, unless it is so already or never will be."""
        over = self._read and not self._interval
        if self._expiry is None or over or self._unread():
            return None
        return self._expiry + self._read * self._interval

    @property
    def wakeups(self) -> int:
        """Grows whenever it goes off or is armed."""
        return self._earlier + self._gone_off()

    def _gone_off(self) -> int:
        """How often, since it was armed."""
        now, expiry = self._now(), self._expiry
        if expiry is None or now < expiry:
            return 0
        return 1 + ((now - expiry) // self._interval if self._interval else 0)

    def _unread(self) -> int:
        return self._gone_off() - self._read

    def read(self, count: int) -> bytes:
        if count < COUNT_BYTES:
            fail(errno.EINVAL)
        unread = self._unread()
        if not unread:
            fail(errno.EAGAIN)
        self._read += unread
        return (unread & _U64).to_bytes(COUNT_BYTES, "little")

    def unread(self, data: bytes) -> None:
        """What could not be delivered is gone, as on Linux."""

    def poll(self) -> int:
        return POLLIN if self._unread() else 0
