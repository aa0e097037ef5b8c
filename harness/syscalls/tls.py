# SPDX-License-Identifier: GPL-2.0-or-later
"""Segments that a thread may set up for its own data.

Models ``set_thread_area()`` of Linux: three descriptors of the GDT, from entry 6 on, change with
the thread that runs. 2.4.22 has none; the C library of today's static programs will not start
without. What can fail: ``EINVAL`` for a segment that no data segment of ring 3 is, ``ESRCH`` when
all three are taken.
"""

import errno
import struct
from dataclasses import dataclass, field
from typing import Final

from harness.vfs.failure import fail

FIRST_ENTRY: Final = 6
ENTRIES: Final = 3
USER_DESC_BYTES: Final = 16
_SEG_32BIT, _CONTENTS, _READ_ONLY, _LIMIT_IN_PAGES, _NOT_PRESENT, _USEABLE = 1, 6, 8, 16, 32, 64
_EMPTY: Final = _READ_ONLY | _NOT_PRESENT
"""Flags of a request that takes a segment away; base and limit are 0 then."""


@dataclass(frozen=True, slots=True)
class UserDesc:
    """``struct user_desc``."""

    entry_number: int
    base_addr: int
    limit: int
    flags: int

    @classmethod
    def parse(cls, data: bytes) -> "UserDesc":
        return cls(*struct.unpack("<4I", data))

    def pack(self) -> bytes:
        return struct.pack("<4I", self.entry_number, self.base_addr, self.limit, self.flags)

    @property
    def empty(self) -> bool:
        return not self.base_addr and not self.limit and self.flags & 0x3F == _EMPTY

    def descriptor(self) -> int:
        """The eight bytes of the GDT, as a number."""
        if self.empty:
            return 0
        flags = self.flags
        kind = 0xF0 | (0 if flags & _READ_ONLY else 2) | (flags & _CONTENTS) << 1
        if flags & _NOT_PRESENT:
            kind &= ~0x80
        upper = (flags & _SEG_32BIT) << 2 | (8 if flags & _LIMIT_IN_PAGES else 0)
        upper |= 1 if flags & _USEABLE else 0
        low = self.limit & 0xFFFF | (self.base_addr & 0xFFFF) << 16
        high = self.base_addr >> 16 & 0xFF | kind << 8 | self.limit & 0xF0000
        return low | (high | upper << 20 | self.base_addr & 0xFF000000) << 32


@dataclass(slots=True)
class ThreadAreas:
    """The three segments of one thread, ``None`` where there is none."""

    areas: list[UserDesc | None] = field(default_factory=lambda: [None] * ENTRIES)

    def copy(self) -> "ThreadAreas":
        return ThreadAreas(list(self.areas))

    def set(self, wanted: UserDesc) -> int:
        """Set up a segment; the number of its entry, chosen if the request leaves it open."""
        number = wanted.entry_number
        if number == 0xFFFFFFFF:
            free = [index for index, area in enumerate(self.areas) if area is None]
            if not free:
                fail(errno.ESRCH)
            number = FIRST_ENTRY + free[0]
        if not FIRST_ENTRY <= number < FIRST_ENTRY + ENTRIES:
            fail(errno.EINVAL)
        # Code, or data that grows downwards, could not be told from what a debugger expects.
        if not wanted.empty and (wanted.flags & _CONTENTS or not wanted.flags & _SEG_32BIT):
            fail(errno.EINVAL)
        area = UserDesc(number, wanted.base_addr, wanted.limit, wanted.flags)
        self.areas[number - FIRST_ENTRY] = None if area.empty else area
        return number

    def get(self, number: int) -> UserDesc:
        if not FIRST_ENTRY <= number < FIRST_ENTRY + ENTRIES:
            fail(errno.EINVAL)
        area = self.areas[number - FIRST_ENTRY]
        return area or UserDesc(number, 0, 0, _EMPTY)

    def descriptors(self) -> list[int]:
        """What the GDT holds for them."""
        return [area.descriptor() if area else 0 for area in self.areas]
