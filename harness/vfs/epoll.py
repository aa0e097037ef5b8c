# SPDX-License-Identifier: GPL-2.0-or-later
"""A set of open files, and which of them are ready.

Models linux-6 ``fs/eventpoll.c``. The set holds no file open: one that is closed everywhere leaves
it. Those that were told of go to the end, so that all get their turn. What can fail: ``EEXIST``,
``ENOENT``, ``EPERM`` for a file that cannot be waited for, ``EINVAL``, ``ELOOP`` for sets that
contain each other.
"""

import errno
from dataclasses import dataclass
from typing import Final

from harness.vfs.anonymous import AnonymousFile
from harness.vfs.failure import fail
from harness.vfs.flags import POLLERR, POLLHUP, READABLE
from harness.vfs.inode import SuperBlock
from harness.vfs.open_file import OpenFile

EPOLLEXCLUSIVE: Final = 1 << 28
EPOLLONESHOT: Final = 1 << 30
EPOLLET: Final = 1 << 31
_PRIVATE_BITS: Final = 0xF << 28
MAX_NESTS: Final = 4
MAX_PATHS: Final = 500
"""Ways from a set down to others: whoever asks what is ready goes all of them."""


@dataclass(eq=False, slots=True)
class Interest:
    """One file of the set, by the number it was added under."""

    descriptor: int
    file: OpenFile
    events: int
    data: int
    told: int | None = None
    """With ``EPOLLET``: the file's count of events when it was told of last."""

    @property
    def ready(self) -> int:
        """What to tell of it; 0: nothing."""
        wanted = self.events & ~_PRIVATE_BITS
        if not wanted:
            return 0
        if self.events & EPOLLET and self.told == self.file.wakeups:
            return 0
        return self.file.poll() & (wanted | POLLERR | POLLHUP)

    def tell(self) -> None:
        """It was told of."""
        self.told = self.file.wakeups
        if self.events & EPOLLONESHOT:
            self.events &= _PRIVATE_BITS


class EpollFile(AnonymousFile):
    """The set."""

    kind = b"eventpoll"

    def __init__(self, superblock: SuperBlock) -> None:
        super().__init__(superblock, 0)
        self._interests: list[Interest] = []
        self._holders: list[EpollFile] = []
        """Sets that it was added to; some may have lost it again."""

    @property
    def interests(self) -> list[Interest]:
        """Those whose files are still open."""
        self._keep([one for one in self._interests if one.file.count])
        return self._interests

    def _keep(self, interests: list[Interest]) -> None:
        self.inode.superblock.quota.take_watches(len(interests) - len(self._interests))
        self._interests = interests

    def released(self) -> None:
        self._keep([])
        super().released()

    def find(self, descriptor: int, file: OpenFile) -> Interest | None:
        for interest in self.interests:
            if interest.file is file and interest.descriptor == descriptor:
                return interest
        return None

    def add(self, descriptor: int, file: OpenFile, events: int, data: int) -> None:
        if isinstance(file, EpollFile):
            self._check_nesting(file)
        if self.find(descriptor, file) is not None:
            fail(errno.EEXIST)
        self._keep([*self._interests, Interest(descriptor, file, _wanted(events), data)])
        if isinstance(file, EpollFile):
            file._holders = [*(one for one in file._above if one is not self), self]

    def _check_nesting(self, file: "EpollFile") -> None:
        if file.contains(self) or self.height + file.depth > MAX_NESTS:
            fail(errno.ELOOP)
        if self.ways_to * file.ways_from > MAX_PATHS - max(top.ways_from for top in self.tops):
            fail(errno.EINVAL)

    def modify(self, descriptor: int, file: OpenFile, events: int, data: int) -> None:
        interest = self._existing(descriptor, file)
        if (events | interest.events) & EPOLLEXCLUSIVE:
            fail(errno.EINVAL)
        interest.events, interest.data, interest.told = _wanted(events), data, None

    def remove(self, descriptor: int, file: OpenFile) -> None:
        interest = self._existing(descriptor, file)
        self._keep([one for one in self._interests if one is not interest])

    def _existing(self, descriptor: int, file: OpenFile) -> Interest:
        interest = self.find(descriptor, file)
        if interest is None:
            fail(errno.ENOENT)
        return interest

    # -- sets of sets ------------------------------------------------------------------------

    @property
    def _sets(self) -> list["EpollFile"]:
        return [one.file for one in self.interests if isinstance(one.file, EpollFile)]

    def contains(self, other: "EpollFile") -> bool:
        return self is other or any(below.contains(other) for below in set(self._sets))

    @property
    def depth(self) -> int:
        """How many sets lie in each other below it, itself included."""
        return 1 + max((below.depth for below in set(self._sets)), default=0)

    @property
    def _above(self) -> list["EpollFile"]:
        """The sets that it is in."""
        return [one for one in self._holders if one.count and self in one._sets]

    @property
    def height(self) -> int:
        """How many sets it lies in that lie in each other, itself included."""
        return 1 + max((above.height for above in self._above), default=0)

    @property
    def tops(self) -> set["EpollFile"]:
        """The outermost sets that it lies in; itself, if in none."""
        return {top for above in self._above for top in above.tops} or {self}

    @property
    def ways_from(self) -> int:
        """In how many ways one comes from it to a set below it, or to itself."""
        return 1 + sum(below.ways_from for below in self._sets)

    @property
    def ways_to(self) -> int:
        """In how many ways one comes to it from the outermost sets."""
        ways = (above.ways_to * above._sets.count(self) for above in self._above)
        return sum(ways) or 1

    # -- what is ready -----------------------------------------------------------------------

    def any_ready(self) -> bool:
        return any(interest.ready for interest in self.interests)

    def take(self, count: int) -> list[tuple[int, int]]:
        """Up to ``count`` (events, data) to tell of."""
        events: list[tuple[int, int]] = []
        told: dict[Interest, None] = {}
        for interest in self.interests:
            if len(events) < count and (ready := interest.ready):
                events.append((ready, interest.data))
                told[interest] = None
        for interest in told:
            interest.tell()
        self._interests = [*(one for one in self._interests if one not in told), *told]
        return events

    def poll(self) -> int:
        return READABLE if self.any_ready() else 0

    @property
    def wakeups(self) -> int:
        return sum(interest.file.wakeups for interest in self.interests)

    @property
    def host_descriptors(self) -> tuple[int, ...]:
        """Those of the host whose input can make a file ready."""
        hosts = {interest.file.host_descriptor for interest in self.interests}
        return tuple(sorted(host for host in hosts if host is not None))

    @property
    def host_descriptor(self) -> int | None:
        return next(iter(self.host_descriptors), None)


def _wanted(events: int) -> int:
    """Errors and the other end's going are told of, asked for or not."""
    return events | POLLERR | POLLHUP
