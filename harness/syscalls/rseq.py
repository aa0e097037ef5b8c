# SPDX-License-Identifier: GPL-2.0-or-later
"""``rseq``: a thread tells where it wants to be told which processor it runs on.

Models linux-6 ``kernel/rseq.c: sys_rseq()``; the C library of today's static programs registers an
area of each thread. What is written there, and what becomes of a section that others interrupted,
is decided on the way back to ring 3 (:mod:`harness.signals.rseq`).

What can fail: ``EINVAL`` for a place, a length or flags that cannot be, ``EFAULT``, ``EPERM`` for
another signature, ``EBUSY`` for what is registered already.
"""

import errno
from typing import Final

from harness.syscalls.requests import Call
from harness.syscalls.restartable import (
    AREA_SIZE,
    NO_CPU,
    SECTION,
    RestartableSequences,
    write_numbers,
)
from harness.syscalls.task import Task
from harness.syscalls.user_copy import check_range, copy_out, words

RSEQ_FLAG_UNREGISTER: Final = 1


def sys_rseq(task: Task, area: int, length: int, flags: int, signature: int) -> Call:
    if flags & RSEQ_FLAG_UNREGISTER:
        return (yield from _unregister(task, area, length, flags, signature))
    if flags:
        return -errno.EINVAL
    known = task.rseq
    if known.area:
        if (known.area, known.length) != (area, length):
            return -errno.EINVAL
        return -errno.EBUSY if known.signature == signature else -errno.EPERM
    if length < AREA_SIZE or area % AREA_SIZE:
        return -errno.EINVAL
    check_range(area, length)
    # A section that was left there would be aborted at once.
    yield from copy_out(area + SECTION, words(0, size=8))
    task.rseq = RestartableSequences(area, length, signature, pending=True)
    return 0


def _unregister(task: Task, area: int, length: int, flags: int, signature: int) -> Call:
    known = task.rseq
    if flags != RSEQ_FLAG_UNREGISTER or not known.area:
        return -errno.EINVAL
    if (known.area, known.length) != (area, length):
        return -errno.EINVAL
    if known.signature != signature:
        return -errno.EPERM
    yield from write_numbers(area, number=NO_CPU)
    task.rseq = RestartableSequences()
    return 0
