# SPDX-License-Identifier: GPL-2.0-or-later
"""Counters and timers that are files: ``eventfd`` and ``timerfd``.

Models linux-6 ``fs/eventfd.c`` and ``fs/timerfd.c``: none of them is in 2.4. What can fail:
``EINVAL`` for flags, clocks and times that cannot be, ``EMFILE``, ``EFAULT``.
"""

import errno
from typing import Final

from harness.syscalls.new_files import install
from harness.syscalls.requests import Call
from harness.syscalls.structures import Itimerspec, Itimerspec64
from harness.syscalls.task import Task
from harness.syscalls.timespec import SECOND, nanoseconds
from harness.syscalls.user_copy import copy_struct_in, copy_struct_out
from harness.vfs.eventfd import EventFile
from harness.vfs.failure import fail
from harness.vfs.flags import O_CLOEXEC, O_NONBLOCK
from harness.vfs.timerfd import TimerFile

EFD_SEMAPHORE: Final = 1
TFD_TIMER_ABSTIME: Final = 1
TFD_TIMER_CANCEL_ON_SET: Final = 2
_FILE_FLAGS: Final = O_CLOEXEC | O_NONBLOCK
_REALTIME, _MONOTONIC, _BOOTTIME = 0, 1, 7
_CLOCKS: Final = frozenset({_REALTIME, _MONOTONIC, _BOOTTIME})

Layout = type[Itimerspec] | type[Itimerspec64]


# -- counters ------------------------------------------------------------------------------------


def sys_eventfd2(task: Task, value: int, flags: int) -> int:
    if flags & ~(_FILE_FLAGS | EFD_SEMAPHORE):
        return -errno.EINVAL
    semaphore = bool(flags & EFD_SEMAPHORE)
    superblock = task.system.files.pipes
    file = EventFile(superblock, flags & O_NONBLOCK, value, semaphore=semaphore)
    return install(task, file, flags)


def sys_eventfd(task: Task, value: int) -> int:
    return sys_eventfd2(task, value, 0)


# -- timers --------------------------------------------------------------------------------------


def sys_timerfd_create(task: Task, clock: int, flags: int) -> int:
    if flags & ~_FILE_FLAGS or clock not in _CLOCKS:
        return -errno.EINVAL
    files = task.system.files
    file = TimerFile(files.pipes, flags & O_NONBLOCK, clock, task.system.clock.monotonic)
    files.timers.add(file)
    return install(task, file, flags)


def _timer(task: Task, descriptor: int) -> TimerFile:
    file = task.files.get(descriptor)
    if not isinstance(file, TimerFile):
        fail(errno.EINVAL)
    return file


def _left(timer: TimerFile, layout: Layout) -> Itimerspec | Itimerspec64:
    left, interval = timer.left()
    result = layout()
    for time, value in ((result.it_value, left), (result.it_interval, interval)):
        time.tv_sec, time.tv_nsec = divmod(value, SECOND)
    return result


def _settime(
    task: Task, descriptor: int, flags: int, wanted: int, before: int, layout: Layout
) -> Call:
    spec = yield from copy_struct_in(wanted, layout)
    value, interval = nanoseconds(spec.it_value), nanoseconds(spec.it_interval)
    if flags & ~(TFD_TIMER_ABSTIME | TFD_TIMER_CANCEL_ON_SET):
        return -errno.EINVAL
    timer, clock = _timer(task, descriptor), task.system.clock
    old, expiry = _left(timer, layout), None
    if value:
        start = clock.monotonic()
        if flags & TFD_TIMER_ABSTIME:
            start -= clock.realtime() if timer.clock == _REALTIME else start
        expiry = start + value
    timer.set(expiry, interval)
    if before:
        yield from copy_struct_out(before, old)
    return 0


def _gettime(task: Task, descriptor: int, result: int, layout: Layout) -> Call:
    timer = _timer(task, descriptor)
    return (yield from copy_struct_out(result, _left(timer, layout)))


def sys_timerfd_settime(task: Task, timer: int, flags: int, wanted: int, before: int) -> Call:
    return (yield from _settime(task, timer, flags, wanted, before, Itimerspec))


def sys_timerfd_settime64(task: Task, timer: int, flags: int, wanted: int, before: int) -> Call:
    return (yield from _settime(task, timer, flags, wanted, before, Itimerspec64))


def sys_timerfd_gettime(task: Task, timer: int, result: int) -> Call:
    return (yield from _gettime(task, timer, result, Itimerspec))


def sys_timerfd_gettime64(task: Task, timer: int, result: int) -> Call:
    return (yield from _gettime(task, timer, result, Itimerspec64))
