# SPDX-License-Identifier: GPL-2.0-or-later
"""Lengths and moments of time, as system calls are told them.

Both layouts of ``struct timespec`` are read here, for every call that takes one. What can fail:
``EINVAL`` for a time before 0, or nanoseconds that are a second or more; ``EFAULT``.
"""

import errno
from typing import Final

from harness.syscalls.requests import Part
from harness.syscalls.structures import Timespec, Timespec64
from harness.syscalls.user_copy import copy_struct_in
from harness.vfs.failure import fail

SECOND: Final = 1_000_000_000
"""Nanoseconds."""

TimeLayout = type[Timespec] | type[Timespec64]


def nanoseconds(time: Timespec | Timespec64) -> int:
    """``timespec_valid()``, and what it comes to."""
    if time.tv_sec < 0 or not 0 <= time.tv_nsec < SECOND:
        fail(errno.EINVAL)
    return int(time.tv_sec) * SECOND + int(time.tv_nsec)


def read_time(address: int, layout: TimeLayout) -> Part[int]:
    """Nanoseconds in the ``timespec`` at a user address."""
    return nanoseconds((yield from copy_struct_in(address, layout)))
