# SPDX-License-Identifier: GPL-2.0-or-later
"""Time: reading it and waiting for it.

Models linux-2.4.22 ``kernel/time.c`` and ``kernel/timer.c``; the ``clock_*`` calls are of later
kernels. The clock is the machine's own, so that a run can be repeated; nobody can set it.
"""

import errno
from collections.abc import Callable
from typing import Final

from harness.syscalls.requests import (
    ERESTART_RESTARTBLOCK,
    ERESTARTNOHAND,
    Call,
    Interrupted,
    RestartSystemCall,
    WaitUntil,
)
from harness.syscalls.structures import Timespec, Timespec64, Timeval, Timezone, Tms
from harness.syscalls.task import Task
from harness.syscalls.timespec import SECOND, TimeLayout, read_time
from harness.syscalls.user_copy import copy_out, copy_struct_out, words

TICK: Final = SECOND // 100
"""``USER_HZ`` is 100."""


_REALTIME, _MONOTONIC, _PROCESS_CPU, _THREAD_CPU = 0, 1, 2, 3
_CLOCKS: Final[dict[int, Callable[[Task], int]]] = {
    _REALTIME: lambda task: task.system.clock.realtime(),
    _MONOTONIC: lambda task: task.system.clock.monotonic(),
    _PROCESS_CPU: lambda task: task.usage().user_time + task.usage().system_time,
    _THREAD_CPU: lambda task: task.usage().user_time + task.usage().system_time,
    4: lambda task: task.system.clock.monotonic(),
    5: lambda task: task.system.clock.realtime(),
    6: lambda task: task.system.clock.monotonic(),
    7: lambda task: task.system.clock.monotonic(),
}
"""Number -> nanoseconds. 4 to 7: ``MONOTONIC_RAW``, the two coarse ones, ``BOOTTIME``."""


def sys_time(task: Task, address: int) -> Call:
    seconds = task.system.clock.realtime() // SECOND & 0x7FFFFFFF
    if address:
        yield from copy_out(address, words(seconds))
    return seconds


def sys_gettimeofday(task: Task, value: int, zone: int) -> Call:
    now = task.system.clock.realtime()
    if value:
        yield from copy_struct_out(value, Timeval(now // SECOND, now // 1000 % 1_000_000))
    if zone:
        yield from copy_struct_out(zone, Timezone(0, 0))
    return 0


def sys_times(task: Task, address: int) -> Call:
    """Ticks since the start; what would look like an error is no failure."""
    if address:
        own, children = task.usage(), task.children_usage()
        times = own.user_time, own.system_time, children.user_time, children.system_time
        yield from copy_struct_out(address, Tms(*(time // TICK for time in times)))
    return task.system.clock.monotonic() // TICK & 0x7FFFFFFF


def _clock_gettime(task: Task, clock: int, address: int, layout: TimeLayout) -> Call:
    if clock not in _CLOCKS:
        return -errno.EINVAL
    now = _CLOCKS[clock](task)
    return (yield from copy_struct_out(address, layout(*divmod(now, SECOND))))


def sys_clock_gettime(task: Task, clock: int, address: int) -> Call:
    return (yield from _clock_gettime(task, clock, address, Timespec))


def sys_clock_gettime64(task: Task, clock: int, address: int) -> Call:
    return (yield from _clock_gettime(task, clock, address, Timespec64))


def _clock_getres(clock: int, address: int, layout: TimeLayout) -> Call:
    if clock not in _CLOCKS:
        return -errno.EINVAL
    if address:
        yield from copy_struct_out(address, layout(0, 1))
    return 0


def sys_clock_getres(task: Task, clock: int, address: int) -> Call:
    del task
    return (yield from _clock_getres(clock, address, Timespec))


def sys_clock_getres_time64(task: Task, clock: int, address: int) -> Call:
    del task
    return (yield from _clock_getres(clock, address, Timespec64))


def sys_settimeofday(task: Task, value: int, zone: int) -> int:
    del task, value, zone
    return -errno.EPERM


def sys_stime(task: Task, address: int) -> int:
    del task, address
    return -errno.EPERM


def sys_clock_settime(task: Task, clock: int, address: int) -> int:
    del task, address
    return -errno.EPERM if clock == _REALTIME else -errno.EINVAL


# -- sleeping ------------------------------------------------------------------------------------

TIMER_ABSTIME: Final = 1


def _never() -> bool:
    return False


def _sleep(task: Task, deadline: int, remaining: int, layout: TimeLayout) -> Call:
    """Until ``deadline``; a signal leaves what was left at ``remaining``."""
    if task.system.clock.monotonic() >= deadline:
        return 0
    try:
        yield WaitUntil(_never, deadline)
        return 0
    except Interrupted:
        left = max(0, deadline - task.system.clock.monotonic())
    if remaining:
        yield from copy_struct_out(remaining, layout(*divmod(left, SECOND)))
    raise RestartSystemCall(
        ERESTART_RESTARTBLOCK, lambda: _sleep(task, deadline, remaining, layout)
    )


def _sleep_until(task: Task, deadline: int) -> Call:
    """For an absolute time: starting again is the same call."""
    try:
        if task.system.clock.monotonic() < deadline:
            yield WaitUntil(_never, deadline)
        return 0
    except Interrupted as signal:
        raise RestartSystemCall(ERESTARTNOHAND) from signal


def _clock_nanosleep(
    task: Task, clock: int, flags: int, wanted: int, remaining: int, layout: TimeLayout
) -> Call:
    if clock not in (_REALTIME, _MONOTONIC, 7):
        return -errno.EINVAL if clock not in _CLOCKS else -errno.EOPNOTSUPP
    time = yield from read_time(wanted, layout)
    now = task.system.clock.monotonic()
    if not flags & TIMER_ABSTIME:
        return (yield from _sleep(task, now + time, remaining, layout))
    return (yield from _sleep_until(task, now + time - _CLOCKS[clock](task)))


def sys_nanosleep(task: Task, wanted: int, remaining: int) -> Call:
    return (yield from _clock_nanosleep(task, _MONOTONIC, 0, wanted, remaining, Timespec))


def sys_clock_nanosleep(task: Task, clock: int, flags: int, wanted: int, remaining: int) -> Call:
    return (yield from _clock_nanosleep(task, clock, flags, wanted, remaining, Timespec))


def sys_clock_nanosleep_time64(
    task: Task, clock: int, flags: int, wanted: int, remaining: int
) -> Call:
    return (yield from _clock_nanosleep(task, clock, flags, wanted, remaining, Timespec64))


def sys_restart_syscall(task: Task) -> Call:
    """Go on with the sleep that a signal without a handler broke off."""
    restart, task.restart = task.restart, None
    if restart is None:
        return -errno.EINTR
    return (yield from restart())
