# SPDX-License-Identifier: GPL-2.0-or-later
"""Locks on files: whole ones by ``flock()``, ranges of bytes by ``fcntl()``.

Models linux-2.4.22 ``fs/locks.c``. The two kinds do not know of each other. A lock on a whole file
belongs to an open file description, a lock on a range to a table of descriptors: closing any of
its descriptors of that file gives them all back. What can fail: ``ENOLCK`` past
:data:`MAX_RANGES`; who finds a conflict decides whether to wait.
"""

import errno
from collections.abc import Hashable
from dataclasses import dataclass, replace
from typing import Final

from harness.vfs.failure import fail

END: Final = 1 << 63
"""Past the last byte of any file."""
MAX_RANGES: Final = 1024
"""Locks on ranges of one file."""


@dataclass(frozen=True, slots=True)
class RangeLock:
    """The bytes from ``start`` up to, not with, ``end``; ``pid`` set it, for who asks."""

    owner: Hashable
    pid: int
    start: int
    end: int
    exclusive: bool

    def meets(self, other: "RangeLock") -> bool:
        return self.start < other.end and other.start < self.end

    def continues(self, other: "RangeLock") -> bool:
        """Whether both are one: of one owner and kind, with no byte between them."""
        alike = (self.owner, self.exclusive) == (other.owner, other.exclusive)
        return alike and self.start <= other.end and other.start <= self.end

    def conflicts(self, other: "RangeLock") -> bool:
        foreign = self.owner != other.owner
        return foreign and self.meets(other) and (self.exclusive or other.exclusive)


class FileLocks:
    """The locks on one file."""

    def __init__(self) -> None:
        self._ranges: list[RangeLock] = []
        self._whole: dict[Hashable, bool] = {}

    # -- ranges of bytes ---------------------------------------------------------------------

    def conflict(self, wanted: RangeLock) -> RangeLock | None:
        """Who keeps ``wanted`` from being set."""
        return next((lock for lock in self._ranges if lock.conflicts(wanted)), None)

    def set_range(self, wanted: RangeLock, *, unlock: bool = False) -> None:
        """Put ``wanted`` in the place of what its owner held there; no conflict is left.

        Neighbours of the same kind become one, and the first one is told first, as Linux does.
        """
        kept = []
        for lock in self._ranges:
            if not unlock and lock.continues(wanted):
                start, end = min(lock.start, wanted.start), max(lock.end, wanted.end)
                wanted = replace(wanted, start=start, end=end)
                continue
            if lock.owner != wanted.owner or not lock.meets(wanted):
                kept.append(lock)
                continue
            for start, end in ((lock.start, wanted.start), (wanted.end, lock.end)):
                if start < end:
                    kept.append(replace(lock, start=start, end=end))
        if not unlock:
            kept.append(wanted)
        if len(kept) > MAX_RANGES:
            fail(errno.ENOLCK)
        self._ranges = sorted(kept, key=lambda lock: lock.start)

    def drop_ranges(self, owner: Hashable) -> None:
        """``owner`` closed a descriptor of the file."""
        self._ranges = [lock for lock in self._ranges if lock.owner != owner]

    # -- the whole file ----------------------------------------------------------------------

    def whole_conflict(self, owner: Hashable, *, exclusive: bool) -> bool:
        """Whether another's lock keeps this one from being set."""
        others = [held for holder, held in self._whole.items() if holder != owner]
        return bool(others) if exclusive else any(others)

    def set_whole(self, owner: Hashable, *, exclusive: bool) -> None:
        self._whole[owner] = exclusive

    def drop_whole(self, owner: Hashable) -> None:
        self._whole.pop(owner, None)
