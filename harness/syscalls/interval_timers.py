# SPDX-License-Identifier: GPL-2.0-or-later
"""``alarm()`` and the interval timers.

Models linux-2.4.22 ``kernel/itimer.c`` and ``kernel/timer.c: sys_alarm``. What can fail:
``EINVAL``, ``EFAULT``.
"""

import errno
from typing import Final

from harness.signals.process import SignalledProcess
from harness.signals.structures import Itimerval
from harness.signals.timers import ITIMER_REAL, Timer
from harness.syscalls.requests import Call
from harness.syscalls.user_copy import copy_struct_in, copy_struct_out
from harness.vfs.failure import fail

_SECOND: Final = 1_000_000_000
_MICROSECOND: Final = 1000
_MILLION: Final = 1_000_000


def _now(process: SignalledProcess, which: int) -> int:
    return process.signals.group.timers.now(which, process.system.clock.monotonic())


def _replace(process: SignalledProcess, which: int, value: int, interval: int) -> tuple[int, int]:
    """Set a timer, all in nanoseconds: what was left of the old one, and its interval."""
    timers, now = process.signals.group.timers.timers, _now(process, which)
    before = timers[which].left(now), timers[which].interval
    timers[which] = Timer(now + value, interval) if value else Timer()
    return before


def sys_alarm(process: SignalledProcess, seconds: int) -> int:
    """The seconds that were left, rounded, but never to none."""
    left, _ = _replace(process, ITIMER_REAL, min(seconds, 0x7FFFFFFF) * _SECOND, 0)
    if not left:
        return 0
    return max(1, (left + _SECOND // 2) // _SECOND)


def _itimerval(left: int, interval: int) -> Itimerval:
    microseconds = (interval // _MICROSECOND, left // _MICROSECOND)
    return Itimerval(*(part for time in microseconds for part in divmod(time, _MILLION)))


def _nanoseconds(seconds: int, microseconds: int) -> int:
    if seconds < 0 or not 0 <= microseconds < _MILLION:
        fail(errno.EINVAL)
    return seconds * _SECOND + microseconds * _MICROSECOND


def sys_getitimer(process: SignalledProcess, which: int, value: int) -> Call:
    timer = process.signals.group.timers.timers.get(which)
    if timer is None:
        return -errno.EINVAL
    told = _itimerval(timer.left(_now(process, which)), timer.interval)
    return (yield from copy_struct_out(value, told))


def sys_setitimer(process: SignalledProcess, which: int, new: int, old: int) -> Call:
    wanted = (yield from copy_struct_in(new, Itimerval)) if new else Itimerval()
    value = _nanoseconds(wanted.value_sec, wanted.value_usec)
    interval = _nanoseconds(wanted.interval_sec, wanted.interval_usec)
    if which not in process.signals.group.timers.timers:
        return -errno.EINVAL
    before = _replace(process, which, value, interval)
    if old:
        yield from copy_struct_out(old, _itimerval(*before))
    return 0
